package io.github.mfagan.app;

import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.graphics.Rect;
import android.graphics.RectF;
import io.github.mfagan.core.PictureSource;
import io.github.mfagan.core.Window;
import java.io.IOException;

/**
 * A picture as a view shows it: all of it at a lower resolution, and the part that is looked at.
 *
 * <p>Both are made on a thread of their own; what is drawn is what is there.
 */
final class Layer {
    private static final int MOST_PIXELS = 2 << 20;

    private final PictureSource picture;
    private final float scale;
    private Bitmap overview;
    private Bitmap detail;
    private RectF place;

    /** Makes a layer; scale is the result's pixels per pixel of this picture. */
    Layer(PictureSource picture, float scale) {
        this.picture = picture;
        this.scale = scale;
    }

    /** Reads all of it, every so-manieth row and column averaged; not on the main thread. */
    void readOverview() throws IOException {
        int step = 1;
        while ((long) picture.height() / step * (picture.width() / step) > MOST_PIXELS) {
            step++;
        }
        int height = Math.max(1, picture.height() / step);
        int width = Math.max(1, picture.width() / step);
        Bitmap found = Bitmap.createBitmap(width, height, Bitmap.Config.ARGB_8888);
        int[] line = new int[width];
        int rows = Math.max(1, 256 / step);
        for (int y = 0; y < height; y += rows) {
            int some = Math.min(rows, height - y);
            Window band = new Window(y * step, 0, Math.min(some * step, picture.height()), width * step);
            int[] pixels = picture.read(band);
            for (int k = 0; k < some; k++) {
                average(pixels, band.width, k * step, step, line);
                found.setPixels(line, 0, width, 0, y + k, width, 1);
            }
        }
        synchronized (this) {
            overview = found;
        }
    }

    private static void average(int[] pixels, int stride, int top, int step, int[] line) {
        for (int x = 0; x < line.length; x++) {
            int red = 0;
            int green = 0;
            int blue = 0;
            for (int y = top; y < top + step; y++) {
                for (int k = x * step; k < (x + 1) * step; k++) {
                    int pixel = pixels[y * stride + k];
                    red += pixel >>> 16 & 255;
                    green += pixel >>> 8 & 255;
                    blue += pixel & 255;
                }
            }
            int area = step * step;
            line[x] = 255 << 24 | red / area << 16 | green / area << 8 | blue / area;
        }
    }

    /** Reads the part that is looked at, pixels of the result; not on the main thread. */
    void readDetail(RectF shown) throws IOException {
        int left = Math.max(0, (int) Math.floor(shown.left / scale));
        int top = Math.max(0, (int) Math.floor(shown.top / scale));
        int right = Math.min(picture.width(), (int) Math.ceil(shown.right / scale));
        int bottom = Math.min(picture.height(), (int) Math.ceil(shown.bottom / scale));
        long area = (long) (right - left) * (bottom - top);
        Bitmap found = null;
        if (right > left && bottom > top && area <= 2L * MOST_PIXELS) {
            int[] pixels = picture.read(new Window(top, left, bottom - top, right - left));
            found =
                    Bitmap.createBitmap(
                            pixels, right - left, bottom - top, Bitmap.Config.ARGB_8888);
        }
        synchronized (this) {
            detail = found;
            place = new RectF(left * scale, top * scale, right * scale, bottom * scale);
        }
    }

    /** Draws a part, pixels of the result, into a rectangle of the view. */
    synchronized void draw(Canvas canvas, float[] from, float[] to, Paint paint) {
        if (overview == null) {
            return;
        }
        canvas.save();
        canvas.clipRect(to[0], to[1], to[2], to[3]);
        float zoom = (to[2] - to[0]) / (from[2] - from[0]);
        float x = to[0] - from[0] * zoom;
        float y = to[1] - from[1] * zoom;
        RectF all = new RectF(0, 0, picture.width() * scale, picture.height() * scale);
        canvas.drawBitmap(overview, null, onView(all, x, y, zoom), paint);
        if (detail != null) {
            Rect whole = new Rect(0, 0, detail.getWidth(), detail.getHeight());
            canvas.drawBitmap(detail, whole, onView(place, x, y, zoom), paint);
        }
        canvas.restore();
    }

    private static RectF onView(RectF part, float x, float y, float zoom) {
        return new RectF(
                x + part.left * zoom,
                y + part.top * zoom,
                x + part.right * zoom,
                y + part.bottom * zoom);
    }

    int height() {
        return Math.round(picture.height() * scale);
    }

    int width() {
        return Math.round(picture.width() * scale);
    }
}
