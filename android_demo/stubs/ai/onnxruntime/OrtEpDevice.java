package ai.onnxruntime;

public final class OrtEpDevice {
    OrtEpDevice() {}

    public String getName() {
        throw new UnsupportedOperationException();
    }
}
