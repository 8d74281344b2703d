package ai.onnxruntime;

import java.nio.ByteBuffer;

public class OnnxTensor extends OnnxTensorLike {
    final ByteBuffer data;

    OnnxTensor(ByteBuffer data, TensorInfo info) {
        super(info);
        this.data = data;
    }

    public static OnnxTensor createTensor(
            OrtEnvironment env, ByteBuffer data, long[] shape, OnnxJavaType type)
            throws OrtException {
        return new OnnxTensor(data, new TensorInfo(type, shape));
    }

    /** Returns a copy, in the order of bytes that the real one has: Java's. */
    public ByteBuffer getByteBuffer() {
        ByteBuffer copy = ByteBuffer.allocate(data.capacity());
        copy.put(data.duplicate());
        copy.rewind();
        return copy;
    }

    @Override
    public void close() {}
}
