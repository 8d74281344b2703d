package io.github.mfagan.core;

import java.util.Locale;

/** How far the work is, in words, and whether the user has ended it; safe between threads. */
public final class Progress implements Watcher {
    private static final double ENOUGH_TO_ESTIMATE = 0.02;

    private final long started;
    private volatile double share;
    private volatile boolean cancelled;
    private volatile int smaller;

    /** Begins at a time of {@link System#nanoTime}. */
    public Progress(long started) {
        this.started = started;
    }

    /** Ends the work before its next tile. */
    public void cancel() {
        cancelled = true;
    }

    @Override
    public boolean cancelled() {
        return cancelled;
    }

    @Override
    public void progress(double done) {
        share = done;
    }

    @Override
    public void smallerTile(int tile) {
        smaller = tile;
        share = 0;
    }

    /** Returns the share that is done, 0 to 1. */
    public double share() {
        return share;
    }

    /** Returns what a user reads at a time of {@link System#nanoTime}. */
    public String describe(long now) {
        if (cancelled) {
            return "ending";
        }
        String said = String.format(Locale.ROOT, "%.0f %%", 100 * share);
        if (share >= ENOUGH_TO_ESTIMATE && share < 1) {
            double seconds = (now - started) / 1e9;
            said += ", about " + duration(seconds / share - seconds) + " left";
        }
        return smaller > 0 ? said + ", in tiles of " + smaller + " for want of memory" : said;
    }

    /** Returns seconds as a user reads them, e.g. 0.8 s, 12 s or 3 min 5 s. */
    public static String duration(double seconds) {
        if (seconds < 10) {
            return String.format(Locale.ROOT, "%.1f s", seconds);
        }
        long whole = Math.round(seconds);
        return whole < 60 ? whole + " s" : whole / 60 + " min " + whole % 60 + " s";
    }
}
