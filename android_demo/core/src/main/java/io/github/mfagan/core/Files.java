package io.github.mfagan.core;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

/** Copies streams, never more than is allowed, and moves files. */
public final class Files {
    private static final int PART = 1 << 16;

    private Files() {}

    /**
     * Copies one stream to another and closes neither.
     *
     * @param watcher is asked before every part whether to go on, or null
     * @throws RefusedException there are more bytes than that
     * @throws CancelledException the watcher said so
     */
    public static void copy(InputStream from, OutputStream to, long most, Watcher watcher)
            throws IOException, RefusedException, CancelledException {
        byte[] part = new byte[PART];
        long done = 0;
        for (int some = from.read(part); some >= 0; some = from.read(part)) {
            if (watcher != null && watcher.cancelled()) {
                throw new CancelledException();
            }
            done += some;
            if (done > most) {
                throw new RefusedException("the file is larger than " + (most >> 20) + " MiB");
            }
            to.write(part, 0, some);
        }
    }

    /** Returns all bytes of a stream and closes it; see {@link #copy}. */
    public static byte[] readAll(InputStream from, long most, Watcher watcher)
            throws IOException, RefusedException, CancelledException {
        try {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            copy(from, bytes, most, watcher);
            return bytes.toByteArray();
        } finally {
            from.close();
        }
    }

    /** Moves a file that is whole to its place, and replaces what is there. */
    public static void move(File from, File to) throws IOException {
        if (!from.renameTo(to)) {
            throw new IOException("'" + to.getName() + "' cannot be written");
        }
    }

    /** Removes a file if it is there. */
    public static void remove(File file) throws IOException {
        if (file.exists() && !file.delete()) {
            throw new IOException("'" + file.getName() + "' cannot be removed");
        }
    }
}
