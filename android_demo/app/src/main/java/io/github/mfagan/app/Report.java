package io.github.mfagan.app;

import android.util.Log;

/** What only a developer reads: the phone's log. */
final class Report {
    private static final String TAG = "mfagan";

    private Report() {}

    static void warn(String what, Throwable error) {
        Log.w(TAG, what, error);
    }
}
