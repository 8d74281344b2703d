package io.github.mfagan.core;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Counts the kernels that ran, by the provider that ONNX Runtime's profiler names. */
final class Layers {
    private static final Pattern PROVIDER = Pattern.compile("\"provider\" *: *\"([^\"]{1,63})\"");

    private Layers() {}

    /**
     * Returns the number of kernels by provider.
     *
     * @param file what the profiler wrote, an event a line
     * @throws IOException it cannot be read
     */
    static Map<String, Integer> count(File file) throws IOException {
        Map<String, Integer> found = new TreeMap<String, Integer>();
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(new FileInputStream(file), "UTF-8"));
        try {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                Matcher match = PROVIDER.matcher(line);
                if (line.contains("_kernel_time\"") && match.find()) {
                    Integer before = found.get(match.group(1));
                    found.put(match.group(1), before == null ? 1 : before + 1);
                }
            }
        } finally {
            lines.close();
        }
        return found;
    }
}
