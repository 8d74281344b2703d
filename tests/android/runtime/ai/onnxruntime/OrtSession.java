package ai.onnxruntime;

import ai.onnxruntime.providers.NNAPIFlags;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

public class OrtSession implements AutoCloseable {
    private static final List<String> KINDS = Arrays.asList("", "FLOAT", "UINT8");
    private final long handle;
    private boolean closed;

    OrtSession(long handle) {
        this.handle = handle;
    }

    public Set<String> getInputNames() {
        try {
            return new LinkedHashSet<String>(Arrays.asList(Native.names(handle)));
        } catch (OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    public Result run(Map<String, ? extends OnnxTensorLike> inputs) throws OrtException {
        Map.Entry<String, ? extends OnnxTensorLike> one = inputs.entrySet().iterator().next();
        OnnxTensor given = (OnnxTensor) one.getValue();
        long[] told = new long[10];
        int type = type(given.getInfo().type);
        long[] shape = given.getInfo().getShape();
        byte[] bytes = Native.run(handle, one.getKey(), given.data, shape, type, told);
        long[] dims = Arrays.copyOfRange(told, 2, 2 + (int) told[1]);
        ByteBuffer data = ByteBuffer.wrap(bytes);
        return new Result(new OnnxTensor(data, new TensorInfo(kind((int) told[0]), dims)));
    }

    private static int type(OnnxJavaType kind) {
        return kind == OnnxJavaType.FLOAT16 ? 10 : KINDS.indexOf(kind.name());
    }

    private static OnnxJavaType kind(int type) {
        return type == 10 ? OnnxJavaType.FLOAT16 : OnnxJavaType.valueOf(KINDS.get(type));
    }

    public String endProfiling() throws OrtException {
        return Native.endProfiling(handle);
    }

    @Override
    public void close() throws OrtException {
        if (closed) {
            throw new IllegalStateException("closed twice");
        }
        closed = true;
        Native.close(handle);
    }

    public static class Result implements AutoCloseable {
        private final OnnxTensor output;

        Result(OnnxTensor output) {
            this.output = output;
        }

        public OnnxValue get(int index) {
            return output;
        }

        @Override
        public void close() {}
    }

    /** Of the providers, the CPU is there; another is asked of ONNX Runtime, which refuses it. */
    public static class SessionOptions implements AutoCloseable {
        int threads = 1;
        String profile;
        String provider = "";
        private boolean closed;

        public enum OptLevel {
            ALL_OPT
        }

        public SessionOptions() {}

        public void setOptimizationLevel(OptLevel level) throws OrtException {}

        public void setIntraOpNumThreads(int count) throws OrtException {
            threads = count;
        }

        public void setInterOpNumThreads(int count) throws OrtException {}

        public void enableProfiling(String path) throws OrtException {
            profile = path;
        }

        public void addConfigEntry(String key, String value) throws OrtException {}

        public void addXnnpack(Map<String, String> options) throws OrtException {
            provider = "XNNPACK";
        }

        public void addNnapi(EnumSet<NNAPIFlags> flags) throws OrtException {
            throw new OrtException("Error code - ORT_EP_FAIL : NNAPI is not in this build");
        }

        public void addQnn(Map<String, String> options) throws OrtException {
            provider = "QNN";
        }

        public void addExecutionProvider(List<OrtEpDevice> devices, Map<String, String> options)
                throws OrtException {
            provider = "QNN";
        }

        @Override
        public void close() {
            if (closed) {
                throw new IllegalStateException("closed twice");
            }
            closed = true;
        }
    }
}
