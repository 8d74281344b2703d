package io.github.mfagan.app;

import android.app.ActivityManager;
import android.content.Context;
import android.net.Uri;
import android.os.Handler;
import android.os.Looper;
import io.github.mfagan.core.Budget;
import io.github.mfagan.core.CancelledException;
import io.github.mfagan.core.Engine;
import io.github.mfagan.core.Files;
import io.github.mfagan.core.Network;
import io.github.mfagan.core.NetworkException;
import io.github.mfagan.core.PictureSource;
import io.github.mfagan.core.PngWriter;
import io.github.mfagan.core.Progress;
import io.github.mfagan.core.RefusedException;
import io.github.mfagan.core.RowSink;
import io.github.mfagan.core.Store;
import io.github.mfagan.core.Upscaler;
import io.github.mfagan.core.Window;
import java.io.BufferedOutputStream;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * What is done for the user, one thing at a time, on a thread of its own.
 *
 * <p>The picture, its result and what is known of it lie in files: neither turning the phone nor
 * the system's ending the app for want of memory loses them: see {@link Store}.
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

    private final Context context;
    private final Store store;
    private final Handler main = new Handler(Looper.getMainLooper());
    private final ExecutorService thread = Executors.newSingleThreadExecutor();
    private final List<Model> opened = new CopyOnWriteArrayList<Model>();
    private volatile Progress progress;
    private volatile String message = "";
    private volatile int version;
    private Listener listener;

    Work(Context context) {
        this.context = context;
        store = new Store(new File(context.getFilesDir(), "picture"));
        try {
            store.open();
            message = store.said();
        } catch (IOException error) {
            message = "failed: " + error.getMessage();
        }
    }

    /** Tells a screen of changes; null for none. */
    void attach(Listener screen) {
        listener = screen;
    }

    /** Returns the picture that the user gave. */
    File source() {
        return store.source();
    }

    /** Returns the result's file. */
    File result() {
        return store.result();
    }

    /** Returns how many times larger the result is, or 0 where there is none. */
    int scale() {
        return store.scale();
    }

    /** Returns the models that the user opened; they live as long as the app. */
    List<Model> opened() {
        return opened;
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
                        return openNow(uri);
                    }
                });
    }

    /** Opens a model that the user picked. */
    void openModel(final Uri uri, final String title) {
        start(
                new Task() {
                    @Override
                    public String run() throws Exception {
                        Model model = Models.open(context, uri, title, progress);
                        opened.add(model);
                        return model.card.describe();
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
                        Gallery.save(context, result(), place, progress);
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

    private String openNow(Uri uri) throws Exception {
        InputStream from = context.getContentResolver().openInputStream(uri);
        if (from == null) {
            throw new IOException("the picture cannot be opened");
        }
        try {
            OutputStream to = new FileOutputStream(store.nextSource());
            try {
                Files.copy(from, to, MOST_BYTES, progress);
            } finally {
                to.close();
            }
        } finally {
            from.close();
        }
        PictureSource picture = StoredPicture.open(store.nextSource());
        picture.read(new Window(0, 0, 1, 1)); // a damaged one is not taken
        store.takeSource();
        return picture.width() + "x" + picture.height() + " pixels";
    }

    private String enlargeNow(Model model, String provider) throws Exception {
        model.card.checkForPhone();
        PictureSource picture = StoredPicture.open(source());
        Engine.Settings settings =
                new Engine.Settings(
                        provider, Collections.<String, String>emptyMap(), threads(), null);
        byte[] bytes = Models.bytes(context, model, progress);
        Network network = App.engine().load(bytes, settings);
        Upscaler.Target target =
                new Upscaler.Target() {
                    @Override
                    public RowSink open(int height, int width) throws IOException {
                        OutputStream file = new FileOutputStream(store.nextResult());
                        return new PngWriter(new BufferedOutputStream(file), height, width);
                    }
                };
        long started = System.nanoTime();
        try {
            int tile = Budget.tile(model.card, picture.width(), memory(), heap());
            new Upscaler(model.card, network).run(picture, tile, target, progress);
        } finally {
            network.close();
        }
        String took = Progress.duration((System.nanoTime() - started) / 1e9);
        int scale = model.card.architecture.scale;
        String said = picture.width() + "x" + picture.height() + " to " + picture.width() * scale
                + "x" + picture.height() * scale + " in " + took + " on " + provider;
        store.takeResult(scale, said + "\n" + model.card.describe());
        return store.said();
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

    private String outcome(Task task) {
        try {
            store.discard();
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
        } finally {
            discard();
        }
    }

    private void discard() {
        try {
            store.discard();
        } catch (IOException error) {
            Report.warn("what was begun cannot be removed", error);
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
