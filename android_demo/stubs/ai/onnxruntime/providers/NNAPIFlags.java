package ai.onnxruntime.providers;

public enum NNAPIFlags implements OrtFlags {
    USE_FP16,
    USE_NCHW,
    CPU_DISABLED,
    CPU_ONLY;

    @Override
    public int getValue() {
        return 1 << ordinal();
    }
}
