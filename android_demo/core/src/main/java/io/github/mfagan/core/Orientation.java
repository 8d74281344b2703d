package io.github.mfagan.core;

import java.io.IOException;

/**
 * Shows a picture as its EXIF orientation says, 1 to 8, its parts included.
 *
 * <p>Cameras store pixels as the sensor has them and write down how to turn them.
 */
public final class Orientation implements PictureSource {
    private final PictureSource stored;
    private final boolean swapped;
    private final boolean flippedRows;
    private final boolean flippedColumns;

    /**
     * Turns a picture.
     *
     * @param orientation EXIF's number; anything but 2 to 8 leaves it as it is
     */
    public Orientation(PictureSource stored, int orientation) {
        this.stored = stored;
        swapped = orientation >= 5 && orientation <= 8;
        // Read in the stored picture's own rows and columns, after they were swapped.
        flippedRows = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
        flippedColumns =
                orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    }

    @Override
    public int height() {
        return swapped ? stored.width() : stored.height();
    }

    @Override
    public int width() {
        return swapped ? stored.height() : stored.width();
    }

    @Override
    public int[] read(Window part) throws IOException {
        int top = flippedRows ? height() - part.bottom() : part.top;
        int left = flippedColumns ? width() - part.right() : part.left;
        Window there =
                swapped
                        ? new Window(left, top, part.width, part.height)
                        : new Window(top, left, part.height, part.width);
        int[] pixels = stored.read(there);
        if (!swapped && !flippedRows && !flippedColumns) {
            return pixels;
        }
        int[] turned = new int[pixels.length];
        for (int y = 0; y < part.height; y++) {
            int row = flippedRows ? part.height - 1 - y : y;
            for (int x = 0; x < part.width; x++) {
                int column = flippedColumns ? part.width - 1 - x : x;
                int from = swapped ? column * there.width + row : row * there.width + column;
                turned[y * part.width + x] = pixels[from];
            }
        }
        return turned;
    }
}
