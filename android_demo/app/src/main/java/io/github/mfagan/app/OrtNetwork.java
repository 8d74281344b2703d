package io.github.mfagan.app;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import io.github.mfagan.core.Network;
import io.github.mfagan.core.NetworkException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Collections;

/** A network in an ONNX Runtime session. */
final class OrtNetwork implements Network {
    private final OrtEnvironment environment;
    private final OrtSession.SessionOptions options;
    private final OrtSession session;
    private final String input;

    /** Makes a session; the options are closed with it, or when it cannot be made. */
    OrtNetwork(OrtEnvironment environment, byte[] model, OrtSession.SessionOptions options)
            throws OrtException, NetworkException {
        this.environment = environment;
        this.options = options;
        try {
            session = environment.createSession(model, options);
        } catch (OrtException error) {
            options.close();
            throw error;
        }
        if (session.getInputNames().size() != 1) {
            close();
            throw new NetworkException("the model must have one input");
        }
        input = session.getInputNames().iterator().next();
    }

    @Override
    public Output run(ByteBuffer data, long[] shape, Kind kind) throws NetworkException {
        data.rewind();
        try {
            OnnxJavaType type = OnnxJavaType.valueOf(kind.name());
            OnnxTensor tensor = OnnxTensor.createTensor(environment, data, shape, type);
            try {
                OrtSession.Result result = session.run(Collections.singletonMap(input, tensor));
                try {
                    return output(result);
                } finally {
                    result.close();
                }
            } finally {
                tensor.close();
            }
        } catch (OrtException error) {
            if (String.valueOf(error.getMessage()).contains("llocat")) { // (bad_)alloc, Failed to
                throw (OutOfMemoryError) new OutOfMemoryError(error.getMessage()).initCause(error);
            }
            throw OrtEngine.failed("ONNX Runtime cannot run the model", error);
        }
    }

    private static Output output(OrtSession.Result result) throws NetworkException {
        if (!(result.get(0) instanceof OnnxTensor)) {
            throw new NetworkException("the model's output is not a tensor");
        }
        OnnxTensor tensor = (OnnxTensor) result.get(0);
        Kind kind = null;
        for (Kind one : Kind.values()) {
            kind = one.name().equals(tensor.getInfo().type.name()) ? one : kind;
        }
        if (kind == null) {
            throw new NetworkException("the model's output must be float, float16 or uint8");
        }
        ByteBuffer data = tensor.getByteBuffer().order(ByteOrder.nativeOrder());
        return new Output(data, tensor.getInfo().getShape(), kind);
    }

    @Override
    public String endProfiling() throws NetworkException {
        try {
            return session.endProfiling();
        } catch (OrtException error) {
            throw OrtEngine.failed("the profiler gave nothing", error);
        }
    }

    @Override
    public void close() {
        try {
            session.close();
        } catch (OrtException error) {
            throw new IllegalStateException(error); // ONNX Runtime has no way to fail here
        } finally {
            options.close();
        }
    }
}
