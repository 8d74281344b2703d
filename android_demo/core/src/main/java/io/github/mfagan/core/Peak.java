package io.github.mfagan.core;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileReader;
import java.io.IOException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Reads the peak resident memory of this process. */
final class Peak {
    private static final Pattern PEAK = Pattern.compile("VmHWM:\\s*([0-9]+) kB");

    private Peak() {}

    /** Returns bytes, or 0 where the system does not tell. */
    static long bytes() {
        try {
            BufferedReader lines = new BufferedReader(new FileReader(new File("/proc/self/status")));
            try {
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    Matcher match = PEAK.matcher(line);
                    if (match.matches()) {
                        return Long.parseLong(match.group(1)) * 1024;
                    }
                }
                return 0;
            } finally {
                lines.close();
            }
        } catch (IOException error) {
            return 0;
        }
    }
}
