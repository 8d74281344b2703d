package io.github.mfagan.core;

import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Properties;

/**
 * The picture, its result and what is known of it, in files that outlive the app's process.
 *
 * <p>Only whole files take their place. A process may be ended between any two steps: the next one
 * finds the result of before with its words, or the new one with its own, never one with the
 * other's. One thread writes; any may read.
 */
public final class Store {
    private static final String SCALE = "scale";
    private static final String SAID = "said";

    private final File folder;
    private volatile int scale;
    private volatile String said = "";

    /** Makes it of a folder that need not be there; {@link #open} comes next. */
    public Store(File folder) {
        this.folder = folder;
    }

    /**
     * Makes the folder, and does what {@link #discard} does.
     *
     * @throws IOException the files cannot be read or written
     */
    public void open() throws IOException {
        if (!folder.isDirectory() && !folder.mkdirs()) {
            throw new IOException("the app's own folder cannot be made");
        }
        discard();
    }

    /** Returns the picture that the user gave. */
    public File source() {
        return new File(folder, "source");
    }

    /** Returns where the next picture is written; {@link #takeSource} puts it in its place. */
    public File nextSource() {
        return new File(folder, "source.part");
    }

    /** Returns the result's file. */
    public File result() {
        return new File(folder, "result.png");
    }

    /** Returns where the next result is written; {@link #takeResult} puts it in its place. */
    public File nextResult() {
        return new File(folder, "result.part");
    }

    /** Returns how many times larger the result is, or 0 where there is none. */
    public int scale() {
        return scale;
    }

    /** Returns what is to be said about the result; empty where there is none. */
    public String said() {
        return said;
    }

    /** Puts the next picture in its place; the result of the one before goes. */
    public void takeSource() throws IOException {
        scale = 0;
        said = "";
        Files.remove(about());
        Files.remove(result());
        Files.move(nextSource(), source());
    }

    /** Puts the next result in its place, with what is known of it. */
    public void takeResult(int newScale, String words) throws IOException {
        Properties kept = new Properties();
        kept.setProperty(SCALE, Integer.toString(newScale));
        kept.setProperty(SAID, words);
        File part = new File(folder, "about.part");
        OutputStream to = new FileOutputStream(part);
        try {
            kept.store(to, null);
        } finally {
            to.close();
        }
        Files.move(part, nextAbout()); // from here on the next result is the result
        settle();
        read();
    }

    /**
     * Removes what was begun and is not whole, and takes a result whose taking was cut short.
     *
     * @throws IOException the files cannot be written; nothing else may be begun then
     */
    public void discard() throws IOException {
        settle();
        read();
        Files.remove(nextSource());
        Files.remove(nextResult());
        Files.remove(new File(folder, "about.part"));
    }

    /** Ends the taking of a result: what is known of it was written whole, and its file before. */
    private void settle() throws IOException {
        if (!nextAbout().isFile()) {
            return;
        }
        if (nextResult().isFile()) {
            Files.move(nextResult(), result());
        }
        Files.move(nextAbout(), about());
    }

    private void read() throws IOException {
        Properties found = new Properties();
        if (result().isFile() && about().isFile()) {
            InputStream from = new FileInputStream(about());
            try {
                found.load(from);
            } finally {
                from.close();
            }
        }
        String number = found.getProperty(SCALE, "");
        scale = number.matches("[1-9]") ? Integer.parseInt(number) : 0;
        said = scale > 0 ? found.getProperty(SAID, "") : "";
    }

    private File about() {
        return new File(folder, "about");
    }

    private File nextAbout() {
        return new File(folder, "about.next");
    }
}
