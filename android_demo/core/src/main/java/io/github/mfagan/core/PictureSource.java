package io.github.mfagan.core;

import java.io.IOException;

/** A picture whose pixels are read part by part, so that it need not fit into memory. */
public interface PictureSource {
    /** Returns the number of rows. */
    int height();

    /** Returns the number of columns. */
    int width();

    /**
     * Returns a part's pixels, 0xAARRGGBB, row by row.
     *
     * @param part lies in the picture
     * @throws IOException the picture cannot be read
     */
    int[] read(Window part) throws IOException;
}
