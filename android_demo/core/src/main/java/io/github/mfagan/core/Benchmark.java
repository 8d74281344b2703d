package io.github.mfagan.core;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Measures a network and says the result as one line of JSON.
 *
 * <p>Layout, input and checksum are those of latency/phone/runner.c, and the same Python code reads
 * both. It answers with an error instead of throwing one: a computer waits for the line.
 */
public final class Benchmark {
    private static final long MOST_BYTES = 1L << 30;

    private final Engine engine;

    /** Makes it of what loads networks. */
    public Benchmark(Engine engine) {
        this.engine = engine;
    }

    /** Returns {"error": ...}; the reason is left out where it is null. */
    public static String error(String what, String why) {
        Json json = new Json().add("error", Json.quoted(what));
        return why == null ? json.close() : json.add("reason", Json.quoted(why)).close();
    }

    /**
     * Measures the network in the request's file.
     *
     * @param profile where the profiler's file may begin, or null for no count of layers
     * @return a line of JSON: the times of all runs, or the error
     */
    public String run(BenchmarkRequest request, File profile) {
        try {
            byte[] model = Files.readAll(new FileInputStream(request.model), MOST_BYTES, null);
            return run(request, model, profile);
        } catch (OutOfMemoryError error) {
            return error("memory", "there is too little for this model and input");
        } catch (IOException error) {
            return error("model", error.getMessage());
        } catch (RefusedException error) {
            return error("model", error.getMessage());
        } catch (CancelledException error) {
            throw new IllegalStateException(error); // nobody watches
        } catch (LinkageError error) {
            return error("runtime", "this build of the app carries no ONNX Runtime");
        } catch (RuntimeException error) {
            return error("run", error.toString());
        }
    }

    private String run(BenchmarkRequest request, byte[] model, File profile) {
        try {
            return measure(request, model, profile);
        } catch (NetworkException error) {
            return error("run", error.getMessage());
        } catch (IOException error) {
            return error("profiling", error.getMessage());
        }
    }

    private String measure(BenchmarkRequest request, byte[] model, File profile)
            throws NetworkException, IOException {
        ByteBuffer input = TestImage.make(request.shape, request.kind);
        List<String> times = new ArrayList<String>();
        Json json = new Json().add("runtime_version", Json.quoted(engine.version()));
        Network.Output output = null;
        long started = System.nanoTime();
        Network network = engine.load(model, request.settings(null));
        try {
            json.add("load_ms", milliseconds(started), 3);
            for (int k = 0; k < request.warmup + request.runs; k++) {
                output = null; // two of them would count twice
                started = System.nanoTime();
                output = network.run(input, request.shape, request.kind);
                double took = milliseconds(started);
                if (k >= request.warmup) {
                    times.add(Json.number(took, 6));
                }
            }
        } finally {
            network.close();
        }
        json.add("times_ms", times.toString()).add("peak_bytes", Long.toString(Peak.bytes()));
        describe(json, output);
        if (profile != null) {
            json.add("layers", layers(request, model, input, profile));
        }
        return json.close();
    }

    private static void describe(Json json, Network.Output output) {
        List<Long> shape = new ArrayList<Long>();
        for (long side : output.shape) {
            shape.add(side);
        }
        double mean = TestImage.mean(output.data, output.kind);
        boolean finite = !Double.isNaN(mean) && !Double.isInfinite(mean);
        json.add("output_shape", shape.toString());
        json.add("checksum", Json.quoted(checksum(output.data)));
        json.add("output_mean", finite ? String.format(Locale.ROOT, "%.9g", mean) : "null");
    }

    /** Returns FNV-1a of a buffer's bytes, 16 hexadecimal digits. */
    static String checksum(ByteBuffer data) {
        long hash = 0xcbf29ce484222325L;
        for (int k = 0; k < data.limit(); k++) {
            hash = (hash ^ (data.get(k) & 255)) * 0x100000001b3L;
        }
        return String.format(Locale.ROOT, "%016x", hash);
    }

    /** Runs the network once more under the profiler. */
    private String layers(BenchmarkRequest request, byte[] model, ByteBuffer input, File profile)
            throws NetworkException, IOException {
        Network network = engine.load(model, request.settings(profile.getPath()));
        String written;
        try {
            network.run(input, request.shape, request.kind);
            written = network.endProfiling();
        } finally {
            network.close();
        }
        File file = new File(written);
        try {
            Json counts = new Json();
            for (Map.Entry<String, Integer> one : Layers.count(file).entrySet()) {
                counts.add(one.getKey(), one.getValue().toString());
            }
            return counts.close();
        } finally {
            if (!file.delete()) {
                file.deleteOnExit();
            }
        }
    }

    private static double milliseconds(long started) {
        return (System.nanoTime() - started) / 1e6;
    }
}
