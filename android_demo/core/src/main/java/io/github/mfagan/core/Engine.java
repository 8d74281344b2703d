package io.github.mfagan.core;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/** What loads networks: ONNX Runtime in the app. */
public interface Engine {
    /** How a network is to be run. */
    final class Settings {
        /** One of {@link Providers#NAMES}. */
        public final String provider;
        /** The provider's own options. */
        public final Map<String, String> options;
        /** Threads of the CPU. */
        public final int threads;
        /** Where the profiler's file begins, or null for no profiling. */
        public final String profile;

        /** Makes settings. */
        public Settings(
                String provider, Map<String, String> options, int threads, String profile) {
            this.provider = provider;
            this.options =
                    Collections.unmodifiableMap(new LinkedHashMap<String, String>(options));
            this.threads = threads;
            this.profile = profile;
        }
    }

    /** Returns the runtime's version, e.g. 1.24.1. */
    String version();

    /**
     * Loads a network.
     *
     * @param model the bytes of an .onnx file; nothing beside them is read
     * @throws NetworkException it is damaged, or the provider is not there; the sentence says why
     */
    Network load(byte[] model, Settings settings) throws NetworkException;
}
