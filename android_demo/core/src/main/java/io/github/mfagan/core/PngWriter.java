package io.github.mfagan.core;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.util.zip.CRC32;
import java.util.zip.Deflater;

/** Writes an opaque picture as a PNG of 8 bits, row by row: a few rows are in memory at a time. */
public final class PngWriter implements RowSink {
    private static final int[] SIGNATURE = {137, 80, 78, 71, 13, 10, 26, 10};
    private static final int CHUNK = 1 << 16;
    private static final byte UP = 2;

    private final DataOutputStream file;
    private final int width;
    private final int height;
    private final byte[] above;
    private final byte[] line;
    private final Deflater deflater = new Deflater(3);
    private final byte[] packed = new byte[CHUNK];
    private int done;

    /**
     * Begins a picture.
     *
     * @param file is closed at the end
     * @throws IOException it cannot be written
     */
    public PngWriter(OutputStream file, int height, int width) throws IOException {
        this.file = new DataOutputStream(file);
        this.width = width;
        this.height = height;
        above = new byte[3 * width];
        line = new byte[3 * width + 1];
        for (int value : SIGNATURE) {
            this.file.write(value);
        }
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        DataOutputStream header = new DataOutputStream(bytes);
        header.writeInt(width);
        header.writeInt(height);
        header.write(new byte[] {8, 2, 0, 0, 0}); // 8 bits, RGB, and nothing special
        chunk("IHDR", bytes.toByteArray(), bytes.size());
    }

    @Override
    public void write(int[] pixels, int rows) throws IOException {
        if (rows > height - done) {
            throw new IllegalArgumentException("more rows than the picture has");
        }
        for (int row = 0; row < rows; row++) {
            line[0] = UP; // each byte less the one above: half the size of plain rows, and quick
            for (int x = 0; x < width; x++) {
                int pixel = pixels[row * width + x];
                for (int c = 0; c < 3; c++) {
                    int at = 3 * x + c;
                    byte value = (byte) (pixel >>> (16 - 8 * c));
                    line[at + 1] = (byte) (value - above[at]);
                    above[at] = value;
                }
            }
            deflater.setInput(line);
            drain();
        }
        done += rows;
    }

    @Override
    public void close() throws IOException {
        try {
            if (done == height) { // a picture that was given up stays one without an end
                deflater.finish();
                drain();
                chunk("IEND", new byte[0], 0);
            }
        } finally {
            deflater.end();
            file.close();
        }
    }

    private void drain() throws IOException {
        while (true) {
            int size = deflater.deflate(packed);
            if (size == 0) {
                return;
            }
            chunk("IDAT", packed, size);
        }
    }

    private void chunk(String name, byte[] data, int size) throws IOException {
        byte[] letters = name.getBytes("US-ASCII");
        CRC32 sum = new CRC32();
        sum.update(letters);
        sum.update(data, 0, size);
        file.writeInt(size);
        file.write(letters);
        file.write(data, 0, size);
        file.writeInt((int) sum.getValue());
    }
}
