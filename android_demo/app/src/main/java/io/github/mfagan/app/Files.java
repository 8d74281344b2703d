package io.github.mfagan.app;

import io.github.mfagan.core.RefusedException;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

/** Copies streams, and never more than is allowed. */
final class Files {
    private static final int PART = 1 << 16;

    private Files() {}

    /**
     * Copies one stream to another and closes neither.
     *
     * @throws RefusedException there are more bytes than that
     */
    static void copy(InputStream from, OutputStream to, long most)
            throws IOException, RefusedException {
        byte[] part = new byte[PART];
        long done = 0;
        for (int some = from.read(part); some >= 0; some = from.read(part)) {
            done += some;
            if (done > most) {
                throw new RefusedException("the file is larger than " + (most >> 20) + " MiB");
            }
            to.write(part, 0, some);
        }
    }

    /** Returns all bytes of a stream and closes it. */
    static byte[] readAll(InputStream from, long most) throws IOException, RefusedException {
        try {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            copy(from, bytes, most);
            return bytes.toByteArray();
        } finally {
            from.close();
        }
    }

    /** Moves a file that is whole to its place. */
    static void move(File from, File to) throws IOException {
        if (!from.renameTo(to)) {
            throw new IOException("'" + to.getName() + "' cannot be written");
        }
    }

    /** Removes a file if it is there. */
    static void remove(File file) throws IOException {
        if (file.exists() && !file.delete()) {
            throw new IOException("'" + file.getName() + "' cannot be removed");
        }
    }
}
