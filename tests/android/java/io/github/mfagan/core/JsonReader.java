package io.github.mfagan.core;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads the JSON that Python's tests write: maps, lists, texts, doubles, booleans and null. */
final class JsonReader {
    private final String text;
    private int place;

    private JsonReader(String text) {
        this.text = text;
    }

    static Object read(String text) {
        JsonReader reader = new JsonReader(text);
        return reader.value();
    }

    private char next() {
        while (Character.isWhitespace(text.charAt(place))) {
            place++;
        }
        return text.charAt(place);
    }

    private Object value() {
        char first = next();
        if (first == '{') {
            return map();
        }
        if (first == '[') {
            return list();
        }
        if (first == '"') {
            return string();
        }
        int start = place;
        while (place < text.length() && ",]} \n".indexOf(text.charAt(place)) < 0) {
            place++;
        }
        String word = text.substring(start, place);
        if (word.equals("null")) {
            return null;
        }
        return word.equals("true") || word.equals("false")
                ? (Object) Boolean.valueOf(word)
                : (Object) Double.valueOf(word);
    }

    private Map<String, Object> map() {
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        place++;
        while (next() != '}') {
            if (next() == ',') {
                place++;
                next();
            }
            String key = string();
            next();
            place++; // the colon
            found.put(key, value());
        }
        place++;
        return found;
    }

    private List<Object> list() {
        List<Object> found = new ArrayList<Object>();
        place++;
        while (next() != ']') {
            if (next() == ',') {
                place++;
            }
            found.add(value());
        }
        place++;
        return found;
    }

    private String string() {
        StringBuilder found = new StringBuilder();
        for (place++; text.charAt(place) != '"'; place++) {
            char letter = text.charAt(place);
            if (letter != '\\') {
                found.append(letter);
                continue;
            }
            letter = text.charAt(++place);
            if (letter == 'u') {
                found.append((char) Integer.parseInt(text.substring(place + 1, place + 5), 16));
                place += 4;
            } else {
                int known = "nrtbf".indexOf(letter);
                found.append(known < 0 ? letter : "\n\r\t\b\f".charAt(known));
            }
        }
        place++;
        return found.toString();
    }
}
