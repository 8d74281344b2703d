package ai.onnxruntime;

import java.util.Collections;
import java.util.List;

public final class OrtEnvironment implements AutoCloseable {
    private static final OrtEnvironment INSTANCE = new OrtEnvironment();

    OrtEnvironment() {}

    public static OrtEnvironment getEnvironment(OrtLoggingLevel level, String name) {
        return INSTANCE;
    }

    public OrtSession createSession(byte[] model, OrtSession.SessionOptions options)
            throws OrtException {
        return new OrtSession(
                Native.load(model, options.threads, options.provider, options.profile));
    }

    public String getVersion() {
        return Native.VERSION;
    }

    public void registerExecutionProviderLibrary(String name, String path) throws OrtException {
        throw new OrtException("Error code - ORT_FAIL : " + path + " is not for this machine");
    }

    public List<OrtEpDevice> getEpDevices() throws OrtException {
        return Collections.<OrtEpDevice>emptyList();
    }

    @Override
    public void close() {}
}
