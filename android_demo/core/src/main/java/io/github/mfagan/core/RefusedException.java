package io.github.mfagan.core;

/** Something that the user gave cannot be used; the message is one sentence for the user. */
public class RefusedException extends Exception {
    private static final long serialVersionUID = 1L;

    /** Makes it of a sentence without a full stop. */
    public RefusedException(String sentence) {
        super(sentence);
    }

    /** Makes it of a sentence and what led to it. */
    public RefusedException(String sentence, Throwable cause) {
        super(sentence, cause);
    }
}
