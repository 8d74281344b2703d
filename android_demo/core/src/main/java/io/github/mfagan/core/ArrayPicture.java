package io.github.mfagan.core;

/** A picture whose pixels are all in memory. */
public final class ArrayPicture implements PictureSource {
    private final int[] pixels;
    private final int height;
    private final int width;

    /** Makes it of height x width pixels, 0xAARRGGBB, row by row. */
    public ArrayPicture(int[] pixels, int height, int width) {
        this.pixels = pixels;
        this.height = height;
        this.width = width;
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
    public int[] read(Window part) {
        int[] found = new int[part.height * part.width];
        for (int y = 0; y < part.height; y++) {
            int from = (part.top + y) * width + part.left;
            System.arraycopy(pixels, from, found, y * part.width, part.width);
        }
        return found;
    }
}
