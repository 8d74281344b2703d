package ai.onnxruntime;

public class TensorInfo implements ValueInfo {
    public final OnnxJavaType type = null;

    TensorInfo() {}

    public long[] getShape() {
        throw new UnsupportedOperationException();
    }
}
