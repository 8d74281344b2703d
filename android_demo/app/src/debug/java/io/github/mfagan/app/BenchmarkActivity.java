package io.github.mfagan.app;

import android.app.Activity;
import android.content.Intent;
import android.os.Bundle;
import android.os.Process;
import android.util.Log;
import android.widget.TextView;
import io.github.mfagan.core.Benchmark;
import io.github.mfagan.core.BenchmarkRequest;
import io.github.mfagan.core.RefusedException;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Timer;
import java.util.TimerTask;

/**
 * Measures a model by intent, in debug builds:
 * {@code am start -n io.github.mfagan.app/.BenchmarkActivity --es model PATH --ei runs 30 --es
 * provider nnapi}; the line of JSON is in the log and in the app's external files.
 *
 * <p>Lines of the log have an end: an answer comes in pieces, {@code ID K/N PIECE}.
 */
public final class BenchmarkActivity extends Activity {
    private static final String TAG = "mfagan-benchmark";
    private static final int PIECE = 3000;

    private volatile boolean answered;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        show(extras(getIntent()));
        if (state == null) { // a screen that is made anew has been measured for, or still is
            measure(getIntent());
        }
    }

    @Override
    protected void onNewIntent(Intent intent) {
        super.onNewIntent(intent);
        measure(intent);
    }

    private void measure(Intent intent) {
        final Map<String, String> extras = extras(intent);
        final String id = String.valueOf(extras.get("id"));
        show(extras);
        answered = false;
        final BenchmarkRequest request;
        try {
            request = BenchmarkRequest.of(extras);
        } catch (RefusedException error) {
            answer(id.matches("[A-Za-z0-9]{1,40}") ? id : "0",
                    Benchmark.error("usage", error.getMessage()));
            return;
        }
        final Timer timer = new Timer(true);
        timer.schedule(
                new TimerTask() {
                    @Override
                    public void run() {
                        answer(request.id, Benchmark.error("time limit", null));
                        Process.killProcess(Process.myPid()); // nothing else ends a running model
                    }
                },
                1000L * request.limit);
        new Thread("benchmark") {
            @Override
            public void run() {
                File profile = new File(getCacheDir(), "layers");
                String said = new Benchmark(App.engine()).run(request, profile);
                timer.cancel();
                answer(request.id, said);
            }
        }.start();
    }

    private void show(Map<String, String> extras) {
        TextView text = new TextView(this);
        text.setText(extras.toString());
        text.setKeepScreenOn(true);
        setContentView(text);
    }

    /** Says a line once, in the log and in a file. */
    private synchronized void answer(String id, String line) {
        if (answered) {
            return;
        }
        answered = true;
        keep(id, line);
        int pieces = (line.length() + PIECE - 1) / PIECE;
        for (int k = 0; k < pieces; k++) {
            String part = line.substring(k * PIECE, Math.min(line.length(), (k + 1) * PIECE));
            Log.i(TAG, id + " " + (k + 1) + "/" + pieces + " " + part);
        }
        runOnUiThread(
                new Runnable() {
                    @Override
                    public void run() {
                        finish();
                    }
                });
    }

    private void keep(String id, String line) {
        try {
            File folder = getExternalFilesDir(null);
            if (folder == null) {
                throw new IOException("the phone has no place for the app's files");
            }
            OutputStream file = new FileOutputStream(new File(folder, "benchmark-" + id + ".json"));
            try {
                file.write((line + "\n").getBytes("UTF-8"));
            } finally {
                file.close();
            }
        } catch (IOException error) {
            Report.warn("the answer is in the log alone", error);
        }
    }

    private static Map<String, String> extras(Intent intent) {
        Map<String, String> found = new LinkedHashMap<String, String>();
        Bundle bundle = intent.getExtras();
        if (bundle != null) {
            for (String key : bundle.keySet()) {
                found.put(key, String.valueOf(bundle.get(key)));
            }
        }
        return found;
    }
}
