package io.github.mfagan.core;

import java.util.Locale;

/** Writes one object as a line of JSON. */
final class Json {
    private final StringBuilder line = new StringBuilder("{");

    /** Adds a key and a value that is JSON already. */
    Json add(String key, String value) {
        if (line.length() > 1) {
            line.append(", ");
        }
        line.append(quoted(key)).append(": ").append(value);
        return this;
    }

    /** Adds a key and a number with so many digits behind its point. */
    Json add(String key, double value, int digits) {
        return add(key, number(value, digits));
    }

    /** Returns the object. */
    String close() {
        return line + "}";
    }

    /** Returns a number with so many digits behind its point, whatever the phone's language. */
    static String number(double value, int digits) {
        return String.format(Locale.ROOT, "%." + digits + "f", value);
    }

    /** Returns a text in quotation marks; what is not ASCII is escaped. */
    static String quoted(String text) {
        StringBuilder found = new StringBuilder("\"");
        for (int k = 0; k < text.length(); k++) {
            char letter = text.charAt(k);
            if (letter == '"' || letter == '\\') {
                found.append('\\').append(letter);
            } else if (letter < ' ' || letter > '~') {
                found.append(String.format(Locale.ROOT, "\\u%04x", (int) letter));
            } else {
                found.append(letter);
            }
        }
        return found.append('"').toString();
    }
}
