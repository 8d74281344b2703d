package ai.onnxruntime;

import java.nio.ByteBuffer;

/** ONNX Runtime's library; -Dort.library is its path, -Dort.bridge that of runtime.c, built. */
final class Native {
    static final String VERSION;

    static {
        if (!"1".equals(System.getenv("ORT_DISABLE_TELEMETRY"))) {
            throw new IllegalStateException("telemetry must be off before the library loads");
        }
        System.load(System.getProperty("ort.bridge"));
        VERSION = open(System.getProperty("ort.library"));
    }

    private Native() {}

    private static native String open(String path);

    static native long load(byte[] model, int threads, String provider, String profile)
            throws OrtException;

    static native String[] names(long session) throws OrtException;

    static native byte[] run(
            long session, String name, ByteBuffer data, long[] shape, int type, long[] told)
            throws OrtException;

    static native String endProfiling(long session) throws OrtException;

    static native void close(long session);
}
