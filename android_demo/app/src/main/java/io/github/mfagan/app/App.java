package io.github.mfagan.app;

import android.app.Application;
import android.content.Context;
import android.system.ErrnoException;
import android.system.Os;
import java.io.File;

/** The process: switches telemetry off before anything can load ONNX Runtime. */
public final class App extends Application {
    private static OrtEngine engine;
    private Work work;

    @Override
    protected void attachBaseContext(Context base) {
        super.attachBaseContext(base);
        String libraries = getApplicationInfo().nativeLibraryDir;
        try {
            Os.setenv("ORT_DISABLE_TELEMETRY", "1", true);
            Os.setenv("ADSP_LIBRARY_PATH", libraries, true); // QNN's programs for the NPU
        } catch (ErrnoException error) {
            throw new IllegalStateException("telemetry cannot be switched off", error);
        }
        engine = new OrtEngine(new File(libraries));
        work = new Work(this); // other apps may ask ResultProvider before onCreate
    }

    /** Returns what loads networks. */
    static OrtEngine engine() {
        return engine;
    }

    /** Returns what is done, and what was done, for the user: longer than any screen lives. */
    static Work work(Context context) {
        return ((App) context.getApplicationContext()).work;
    }
}
