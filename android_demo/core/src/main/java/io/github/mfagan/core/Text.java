package io.github.mfagan.core;

/** Text from outside, as it may be shown to a user. */
final class Text {
    private static final int MOST = 60;

    private Text() {}

    /** Returns at most 60 characters of a text, what is not printable as a dot. */
    static String shown(String text) {
        StringBuilder found = new StringBuilder();
        for (int k = 0; k < Math.min(text.length(), MOST); k++) {
            char letter = text.charAt(k);
            found.append(letter < ' ' || letter == 127 || isInvisible(letter) ? '.' : letter);
        }
        return text.length() > MOST ? found + "..." : found.toString();
    }

    private static boolean isInvisible(char letter) {
        int kind = Character.getType(letter);
        return kind == Character.CONTROL
                || kind == Character.FORMAT
                || kind == Character.LINE_SEPARATOR
                || kind == Character.PARAGRAPH_SEPARATOR
                || kind == Character.SURROGATE
                || kind == Character.UNASSIGNED;
    }
}
