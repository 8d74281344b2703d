package ai.onnxruntime.providers;

public interface OrtFlags {
    int getValue();
}
