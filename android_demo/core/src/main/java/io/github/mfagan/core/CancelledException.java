package io.github.mfagan.core;

/** The user has ended the work; nothing of it is kept. */
public final class CancelledException extends Exception {
    private static final long serialVersionUID = 1L;

    /** Makes it. */
    public CancelledException() {
        super("cancelled");
    }
}
