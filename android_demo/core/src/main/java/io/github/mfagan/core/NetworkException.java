package io.github.mfagan.core;

/** A network cannot be loaded or run; the message is one sentence for the user. */
public final class NetworkException extends Exception {
    private static final long serialVersionUID = 1L;

    /** Makes it of a sentence without a full stop. */
    public NetworkException(String sentence) {
        super(sentence);
    }

    /** Makes it of a sentence and what led to it. */
    public NetworkException(String sentence, Throwable cause) {
        super(sentence, cause);
    }
}
