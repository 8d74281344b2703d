package io.github.mfagan.app;

import io.github.mfagan.core.Benchmark;
import io.github.mfagan.core.BenchmarkRequest;
import io.github.mfagan.core.RefusedException;
import java.io.File;
import java.util.LinkedHashMap;
import java.util.Map;

/** The app's benchmark on a desktop: extras as KEY=VALUE words, the line of JSON on its output. */
public final class MeasureOnDesktop {
    private MeasureOnDesktop() {}

    public static void main(String[] words) throws Exception {
        Map<String, String> extras = new LinkedHashMap<String, String>();
        for (String word : words) {
            int equals = word.indexOf('=');
            extras.put(word.substring(0, equals), word.substring(equals + 1));
        }
        String said;
        try {
            BenchmarkRequest request = BenchmarkRequest.of(extras);
            File profile = File.createTempFile("layers", "");
            said = new Benchmark(new OrtEngine(null)).run(request, profile);
            profile.delete();
        } catch (RefusedException error) {
            said = Benchmark.error("usage", error.getMessage());
        }
        System.out.println(said);
    }
}
