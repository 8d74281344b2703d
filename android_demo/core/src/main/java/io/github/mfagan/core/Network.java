package io.github.mfagan.core;

import java.io.Closeable;
import java.nio.ByteBuffer;

/** A network that is loaded, whatever runs it. */
public interface Network extends Closeable {
    /** What a network takes and gives. */
    enum Kind {
        FLOAT(4),
        FLOAT16(2),
        UINT8(1);

        /** Bytes of an element. */
        public final int bytes;

        Kind(int bytes) {
            this.bytes = bytes;
        }
    }

    /** What a run gave. */
    final class Output {
        public final ByteBuffer data;
        public final long[] shape;
        public final Kind kind;

        /** Makes it of elements in the machine's own byte order. */
        public Output(ByteBuffer data, long[] shape, Kind kind) {
            this.data = data;
            this.shape = shape;
            this.kind = kind;
        }
    }

    /**
     * Runs the network once.
     *
     * @param input elements in the machine's own byte order, direct, from its beginning to its end
     * @param shape of the input, batch included
     * @throws NetworkException it does not run
     */
    Output run(ByteBuffer input, long[] shape, Kind kind) throws NetworkException;

    /**
     * Ends profiling, if it was asked for.
     *
     * @return the path of the profiler's file
     * @throws NetworkException it was not asked for
     */
    String endProfiling() throws NetworkException;

    @Override
    void close();
}
