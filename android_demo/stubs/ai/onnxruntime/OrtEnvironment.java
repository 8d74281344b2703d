package ai.onnxruntime;

import java.util.List;

public final class OrtEnvironment implements AutoCloseable {
    OrtEnvironment() {}

    public static OrtEnvironment getEnvironment(OrtLoggingLevel level, String name) {
        throw new UnsupportedOperationException();
    }

    public OrtSession createSession(byte[] model, OrtSession.SessionOptions options)
            throws OrtException {
        throw new UnsupportedOperationException();
    }

    public String getVersion() {
        throw new UnsupportedOperationException();
    }

    public void registerExecutionProviderLibrary(String name, String path) throws OrtException {
        throw new UnsupportedOperationException();
    }

    public List<OrtEpDevice> getEpDevices() throws OrtException {
        throw new UnsupportedOperationException();
    }

    @Override
    public void close() {}
}
