package io.github.mfagan.core;

import java.io.Closeable;
import java.io.IOException;

/** What takes a picture from above to below. */
public interface RowSink extends Closeable {
    /**
     * Takes the next rows.
     *
     * @param pixels 0xAARRGGBB, row by row
     * @param rows how many of them
     * @throws IOException they cannot be written
     */
    void write(int[] pixels, int rows) throws IOException;
}
