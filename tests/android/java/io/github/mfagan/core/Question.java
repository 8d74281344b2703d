package io.github.mfagan.core;

import java.util.List;
import java.util.Map;

/** What a Python test asks: a map, read with the types that Java wants. */
public final class Question {
    private final Map<String, Object> fields;

    Question(Map<String, Object> fields) {
        this.fields = fields;
    }

    boolean has(String key) {
        return fields.get(key) != null;
    }

    public String text(String key) {
        return (String) fields.get(key);
    }

    public int number(String key) {
        return ((Double) fields.get(key)).intValue();
    }

    double real(String key) {
        return (Double) fields.get(key);
    }

    @SuppressWarnings("unchecked")
    List<Object> list(String key) {
        return (List<Object>) fields.get(key);
    }

    @SuppressWarnings("unchecked")
    Map<String, String> texts(String key) {
        return (Map<String, String>) fields.get(key);
    }

    int[] numbers(String key) {
        return numbers(list(key));
    }

    static int[] numbers(List<?> values) {
        int[] found = new int[values.size()];
        for (int k = 0; k < found.length; k++) {
            found[k] = (int) ((Double) values.get(k)).longValue(); // pixels have 32 bits
        }
        return found;
    }
}
