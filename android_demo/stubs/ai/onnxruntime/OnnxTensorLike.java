package ai.onnxruntime;

public abstract class OnnxTensorLike implements OnnxValue {
    OnnxTensorLike() {}

    public TensorInfo getInfo() {
        throw new UnsupportedOperationException();
    }
}
