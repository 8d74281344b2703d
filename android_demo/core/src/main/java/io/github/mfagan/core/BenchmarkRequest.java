package io.github.mfagan.core;

import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What a benchmark is asked for: the extras of the intent that starts it, checked. */
public final class BenchmarkRequest {
    private static final int MOST = 100000;
    private static final List<String> KEYS =
            Arrays.asList(
                    "model", "id", "shape", "type", "provider", "options", "threads", "warmup",
                    "runs", "limit");

    /** Path of the .onnx file. */
    public final String model;
    /** What the answer is marked with: letters and digits. */
    public final String id;
    /** Of the input, batch included. */
    public final long[] shape;
    /** Of the input's elements. */
    public final Network.Kind kind;
    /** One of {@link Providers#NAMES}. */
    public final String provider;
    /** The provider's own options. */
    public final Map<String, String> options;
    /** Threads of the CPU. */
    public final int threads;
    /** Runs before the timed ones. */
    public final int warmup;
    /** Timed runs. */
    public final int runs;
    /** Seconds after which it is to end. */
    public final int limit;

    private BenchmarkRequest(Map<String, String> extras) throws RefusedException {
        model = extras.get("model");
        id = extras.containsKey("id") ? extras.get("id") : "0";
        shape = shape(extras.containsKey("shape") ? extras.get("shape") : "1,3,128,128");
        String type = extras.containsKey("type") ? extras.get("type") : "float";
        provider = extras.containsKey("provider") ? extras.get("provider") : "cpu";
        options = options(extras.get("options"));
        threads = number(extras, "threads", 1, 4);
        warmup = number(extras, "warmup", 0, 5);
        runs = number(extras, "runs", 1, 30);
        limit = number(extras, "limit", 1, 120);
        if (model == null || model.isEmpty()) {
            throw new RefusedException("--es model PATH is needed");
        }
        if (!id.matches("[A-Za-z0-9]{1,40}")) {
            throw new RefusedException("id is at most 40 letters and digits");
        }
        if (!Arrays.asList("float", "float16", "uint8").contains(type)) {
            throw new RefusedException(
                    "type is float, float16 or uint8, got '" + Text.shown(type) + "'");
        }
        kind = Network.Kind.valueOf(type.toUpperCase(java.util.Locale.ROOT));
        if (!Providers.NAMES.contains(provider)) {
            throw new RefusedException(
                    "provider is one of " + Providers.NAMES + ", got '" + Text.shown(provider)
                            + "'");
        }
        long bytes = kind.bytes;
        for (long side : shape) {
            bytes *= side; // at most 8 sides, and each step is checked before the next
            if (bytes > Integer.MAX_VALUE) {
                throw new RefusedException("the input is larger than 2 GiB");
            }
        }
    }

    /**
     * Returns the request that an intent's extras make.
     *
     * @param extras as text by key; of {@code options}, KEY=VALUE lines
     * @throws RefusedException one is unknown, missing or out of its range
     */
    public static BenchmarkRequest of(Map<String, String> extras) throws RefusedException {
        for (String key : extras.keySet()) {
            if (!KEYS.contains(key)) {
                throw new RefusedException("there is no extra '" + Text.shown(key) + "'");
            }
        }
        return new BenchmarkRequest(extras);
    }

    /** Returns the settings to load the network with. */
    public Engine.Settings settings(String profile) {
        return new Engine.Settings(provider, options, threads, profile);
    }

    private static long[] shape(String text) throws RefusedException {
        String[] words = text.split(",", -1);
        long[] found = new long[words.length];
        if (words.length > 8) {
            throw new RefusedException("shape has at most 8 dimensions");
        }
        for (int k = 0; k < words.length; k++) {
            found[k] = number("shape", words[k], 1);
        }
        return found;
    }

    private static Map<String, String> options(String text) throws RefusedException {
        Map<String, String> found = new LinkedHashMap<String, String>();
        if (text != null && !text.isEmpty()) {
            for (String line : text.split("\n")) {
                int equals = line.indexOf('=');
                if (equals < 1) {
                    throw new RefusedException(
                            "an option is KEY=VALUE, got '" + Text.shown(line) + "'");
                }
                found.put(line.substring(0, equals), line.substring(equals + 1));
            }
        }
        return Collections.unmodifiableMap(found);
    }

    private static int number(Map<String, String> extras, String key, int least, int usual)
            throws RefusedException {
        return extras.containsKey(key) ? number(key, extras.get(key), least) : usual;
    }

    private static int number(String key, String text, int least) throws RefusedException {
        int value = text.matches("[0-9]{1,6}") ? Integer.parseInt(text) : -1;
        if (value < least || value > MOST) {
            throw new RefusedException(
                    key + " is a number of at least " + least + ", got '" + Text.shown(text) + "'");
        }
        return value;
    }
}
