package io.github.mfagan.app;

import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.graphics.BitmapRegionDecoder;
import android.graphics.Rect;
import android.media.ExifInterface;
import io.github.mfagan.core.Orientation;
import io.github.mfagan.core.PictureSource;
import io.github.mfagan.core.RefusedException;
import io.github.mfagan.core.Window;
import java.io.File;
import java.io.IOException;

/**
 * A picture in a file, read part by part; what is transparent lies on white.
 *
 * <p>Opening it reads its size alone. GIF and BMP are decoded as a whole when the first part is
 * read, which may take long, and more memory than there is.
 */
final class StoredPicture implements PictureSource {
    private final File file;
    private final int height;
    private final int width;
    private BitmapRegionDecoder decoder;
    private Bitmap whole;

    private StoredPicture(File file) throws RefusedException {
        this.file = file;
        BitmapFactory.Options bounds = new BitmapFactory.Options();
        bounds.inJustDecodeBounds = true;
        BitmapFactory.decodeFile(file.getPath(), bounds);
        if (bounds.outWidth < 1 || bounds.outHeight < 1) {
            throw new RefusedException("it is no picture that this phone can read");
        }
        height = bounds.outHeight;
        width = bounds.outWidth;
    }

    private synchronized void begin() throws IOException {
        if (decoder != null || whole != null) {
            return;
        }
        BitmapRegionDecoder found = null;
        try {
            found = BitmapRegionDecoder.newInstance(file.getPath(), false);
        } catch (IOException error) {
            found = null; // GIF and BMP are read as a whole
        }
        Bitmap all = found == null ? BitmapFactory.decodeFile(file.getPath()) : null;
        if (found == null && all == null) {
            throw new IOException("the picture is damaged");
        }
        boolean same = found == null
                ? all.getHeight() == height && all.getWidth() == width
                : found.getHeight() == height && found.getWidth() == width;
        if (!same) { // the file was replaced since its size was read
            throw new IOException("the picture is another one by now");
        }
        decoder = found;
        whole = all;
    }

    /**
     * Opens a picture and turns it as its EXIF orientation says.
     *
     * @throws RefusedException it is none
     */
    static PictureSource open(File file) throws RefusedException {
        StoredPicture stored = new StoredPicture(file);
        int orientation = ExifInterface.ORIENTATION_NORMAL;
        try {
            orientation =
                    new ExifInterface(file.getPath())
                            .getAttributeInt(ExifInterface.TAG_ORIENTATION, orientation);
        } catch (IOException error) {
            orientation = ExifInterface.ORIENTATION_NORMAL; // a kind of file without EXIF
        }
        return new Orientation(stored, orientation);
    }

    @Override
    public int height() {
        return height;
    }

    @Override
    public int width() {
        return width;
    }

    @Override
    public int[] read(Window part) throws IOException {
        begin();
        Bitmap bitmap = whole;
        int left = part.left;
        int top = part.top;
        if (decoder != null) {
            bitmap =
                    decoder.decodeRegion(
                            new Rect(part.left, part.top, part.right(), part.bottom()), null);
            left = 0;
            top = 0;
        }
        if (bitmap == null) {
            throw new IOException("the picture is damaged at " + part);
        }
        int[] pixels = new int[part.height * part.width];
        bitmap.getPixels(pixels, 0, part.width, left, top, part.width, part.height);
        if (bitmap.hasAlpha()) {
            for (int k = 0; k < pixels.length; k++) {
                pixels[k] = onWhite(pixels[k]);
            }
        }
        if (bitmap != whole) {
            bitmap.recycle();
        }
        return pixels;
    }

    private static int onWhite(int pixel) {
        int alpha = pixel >>> 24;
        int found = 255;
        for (int shift = 16; shift >= 0; shift -= 8) {
            int level = pixel >>> shift & 255;
            found = found << 8 | (level * alpha + 255 * (255 - alpha) + 127) / 255;
        }
        return found;
    }
}
