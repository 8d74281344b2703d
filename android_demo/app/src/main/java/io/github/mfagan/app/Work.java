package io.github.mfagan.app;

import android.app.ActivityManager;
import android.content.Context;
import android.net.Uri;
import android.os.Handler;
import android.os.Looper;
import io.github.mfagan.core.Budget;
import io.github.mfagan.core.CancelledException;
import io.github.mfagan.core.Engine;
import io.github.mfagan.core.Network;
import io.github.mfagan.core.NetworkException;
import io.github.mfagan.core.PictureSource;
import io.github.mfagan.core.PngWriter;
import io.github.mfagan.core.Progress;
import io.github.mfagan.core.RefusedException;
import io.github.mfagan.core.RowSink;
import io.github.mfagan.core.Upscaler;
import java.io.BufferedOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Collections;
import java.util.Properties;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * What is done for the user, one thing at a time, on a thread of its own.
 *
 * <p>The picture, its result and what is known of it lie in files: neither turning the phone nor
 * the system's ending the app for want of memory loses them. Only whole results take their place.
 */
final class Work {
    /** Who is told, on the main thread, that there is something new to show. */
    interface Listener {
        void changed();
    }

    /** Something to be done that may fail. */
    private interface Task {
        String run() throws Exception;
    }

    private static final long MOST_BYTES = 512L << 20;
    private static final long MOST_TAKEN = 768L << 20;
    private static final String SCALE = "scale";
    private static final String SAID = "said";

    private final Context context;
    private final File folder;
    private final Handler main = new Handler(Looper.getMainLooper());
    private final ExecutorService thread = Executors.newSingleThreadExecutor();
    private volatile Progress progress;
    private volatile String message = "";
    private volatile int version;
    private Listener listener;

    Work(Context context) {
        this.context = context;
        folder = new File(context.getFilesDir(), "picture");
        if (!folder.isDirectory() && !folder.mkdirs()) {
            message = "the app's own folder cannot be made";
        }
        message = about().getProperty(SAID, message);
    }

    /** Tells a screen of changes; null for none. */
    void attach(Listener screen) {
        listener = screen;
    }

    /** Returns the picture that the user gave. */
    File source() {
        return new File(folder, "source");
    }

    /** Returns the result's file. */
    File result() {
        return new File(folder, "result.png");
    }

    /** Returns how many times larger the result is, or 0 where there is none. */
    int scale() {
        return result().isFile() ? Integer.parseInt(about().getProperty(SCALE, "0")) : 0;
    }

    /** Returns a number that changes with the files. */
    int version() {
        return version;
    }

    /** Returns how far the work is, or null where none is under way. */
    Progress progress() {
        return progress;
    }

    /** Returns what is to be said about the last work. */
    String message() {
        return message;
    }

    /** Takes a picture that was picked, or shared with the app. */
    void open(final Uri uri) {
        start(
                new Task() {
                    @Override
                    public String run() throws Exception {
                        File part = new File(folder, "source.part");
                        InputStream from = context.getContentResolver().openInputStream(uri);
                        if (from == null) {
                            throw new IOException("the picture cannot be opened");
                        }
                        OutputStream to = new FileOutputStream(part);
                        try {
                            Files.copy(from, to, MOST_BYTES);
                        } finally {
                            from.close();
                            to.close();
                        }
                        PictureSource picture = StoredPicture.open(part);
                        forgetResult();
                        Files.move(part, source());
                        return picture.width() + "x" + picture.height() + " pixels";
                    }
                });
    }

    /** Enlarges the picture. */
    void enlarge(final Model model, final String provider) {
        start(
                new Task() {
                    @Override
                    public String run() throws Exception {
                        return enlargeNow(model, provider);
                    }
                });
    }

    /** Copies the result to where the user wants it; null puts it among the phone's pictures. */
    void save(final Uri place) {
        start(
                new Task() {
                    @Override
                    public String run() throws Exception {
                        Gallery.save(context, result(), place);
                        return "saved";
                    }
                });
    }

    /** Ends what is under way. */
    void cancel() {
        Progress current = progress;
        if (current != null) {
            current.cancel();
        }
    }

    /** Says something about what could not be begun. */
    void say(String text) {
        message = text;
        tell();
    }

    private String enlargeNow(Model model, String provider) throws Exception {
        model.card.checkForPhone();
        PictureSource picture = StoredPicture.open(source());
        Engine.Settings settings =
                new Engine.Settings(
                        provider, Collections.<String, String>emptyMap(), threads(), null);
        Network network = App.engine().load(Models.bytes(context, model), settings);
        final File part = new File(folder, "result.part");
        Upscaler.Target target =
                new Upscaler.Target() {
                    @Override
                    public RowSink open(int height, int width) throws IOException {
                        OutputStream file = new FileOutputStream(part);
                        return new PngWriter(new BufferedOutputStream(file), height, width);
                    }
                };
        long started = System.nanoTime();
        try {
            int tile = Budget.tile(model.card, picture.width(), memory(), heap());
            new Upscaler(model.card, network).run(picture, tile, target, progress);
        } catch (CancelledException error) {
            Files.remove(part);
            throw error;
        } finally {
            network.close();
        }
        String took = Progress.duration((System.nanoTime() - started) / 1e9);
        int scale = model.card.architecture.scale;
        String said = picture.width() + "x" + picture.height() + " to " + picture.width() * scale
                + "x" + picture.height() * scale + " in " + took + " on " + provider;
        forgetResult();
        Files.move(part, result());
        keepAbout(scale, said + "\n" + model.card.describe());
        return said + "\n" + model.card.describe();
    }

    private void start(final Task task) {
        if (progress != null) {
            say("one thing at a time: wait, or cancel");
            return;
        }
        progress = new Progress(System.nanoTime());
        tell();
        thread.execute(
                new Runnable() {
                    @Override
                    public void run() {
                        message = outcome(task);
                        progress = null;
                        version++;
                        tell();
                    }
                });
    }

    private static String outcome(Task task) {
        try {
            return task.run();
        } catch (CancelledException error) {
            return "cancelled";
        } catch (RefusedException error) {
            return "refused: " + error.getMessage();
        } catch (NetworkException error) {
            return "failed: " + error.getMessage();
        } catch (IOException error) {
            return "failed: " + error.getMessage();
        } catch (SecurityException error) {
            return "failed: the other app has not allowed it";
        } catch (OutOfMemoryError error) {
            return "failed: there is too little memory";
        } catch (Exception error) {
            Report.warn("a fault of the app", error);
            return "failed: " + error;
        }
    }

    private void tell() {
        main.post(
                new Runnable() {
                    @Override
                    public void run() {
                        if (listener != null) {
                            listener.changed();
                        }
                    }
                });
    }

    private void forgetResult() throws IOException {
        Files.remove(new File(folder, "about"));
        Files.remove(result());
    }

    private Properties about() {
        Properties found = new Properties();
        File file = new File(folder, "about");
        if (file.isFile()) {
            try {
                InputStream from = new FileInputStream(file);
                try {
                    found.load(from);
                } finally {
                    from.close();
                }
            } catch (IOException error) {
                Report.warn("what is known of the result cannot be read", error);
            }
        }
        return found;
    }

    private void keepAbout(int scale, String said) throws IOException {
        Properties kept = new Properties();
        kept.setProperty(SCALE, Integer.toString(scale));
        kept.setProperty(SAID, said);
        File part = new File(folder, "about.part");
        OutputStream to = new FileOutputStream(part);
        try {
            kept.store(to, null);
        } finally {
            to.close();
        }
        Files.move(part, new File(folder, "about"));
    }

    private static int threads() {
        return Math.max(1, Math.min(4, Runtime.getRuntime().availableProcessors()));
    }

    /** Returns the bytes of the phone's memory that may be taken: half of what is free. */
    private long memory() {
        ActivityManager.MemoryInfo info = new ActivityManager.MemoryInfo();
        ((ActivityManager) context.getSystemService(Context.ACTIVITY_SERVICE)).getMemoryInfo(info);
        return Math.min(Math.max(0, info.availMem - info.threshold) / 2, MOST_TAKEN);
    }

    /** Returns the bytes of Java's heap that may be taken: half of what it may grow to. */
    private static long heap() {
        Runtime java = Runtime.getRuntime();
        return (java.maxMemory() - java.totalMemory() + java.freeMemory()) / 2;
    }
}
