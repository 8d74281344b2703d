package ai.onnxruntime;

import ai.onnxruntime.providers.NNAPIFlags;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

public class OrtSession implements AutoCloseable {
    OrtSession() {}

    public Set<String> getInputNames() {
        throw new UnsupportedOperationException();
    }

    public Result run(Map<String, ? extends OnnxTensorLike> inputs) throws OrtException {
        throw new UnsupportedOperationException();
    }

    public String endProfiling() throws OrtException {
        throw new UnsupportedOperationException();
    }

    @Override
    public void close() throws OrtException {}

    public static class Result implements AutoCloseable {
        Result() {}

        public OnnxValue get(int index) {
            throw new UnsupportedOperationException();
        }

        @Override
        public void close() {}
    }

    public static class SessionOptions implements AutoCloseable {
        public enum OptLevel {
            ALL_OPT
        }

        public SessionOptions() {}

        public void setOptimizationLevel(OptLevel level) throws OrtException {}

        public void setIntraOpNumThreads(int threads) throws OrtException {}

        public void setInterOpNumThreads(int threads) throws OrtException {}

        public void enableProfiling(String path) throws OrtException {}

        public void addConfigEntry(String key, String value) throws OrtException {}

        public void addXnnpack(Map<String, String> options) throws OrtException {}

        public void addNnapi(EnumSet<NNAPIFlags> flags) throws OrtException {}

        public void addQnn(Map<String, String> options) throws OrtException {}

        public void addExecutionProvider(List<OrtEpDevice> devices, Map<String, String> options)
                throws OrtException {}

        @Override
        public void close() {}
    }
}
