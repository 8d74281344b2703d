package io.github.mfagan.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** The same numbers everywhere, so that outputs can be compared between devices and providers. */
final class TestImage {
    private TestImage() {}

    /** Returns elements of a linear congruential generator, in [0, 1), bytes 0 to 255. */
    static ByteBuffer make(long[] shape, Network.Kind kind) {
        int count = 1;
        for (long side : shape) {
            count *= (int) side;
        }
        ByteBuffer found =
                ByteBuffer.allocateDirect(count * kind.bytes).order(ByteOrder.nativeOrder());
        int state = 1;
        for (int k = 0; k < count; k++) {
            state = state * 1664525 + 1013904223;
            double value = (state >>> 8) / 16777216.0;
            if (kind == Network.Kind.FLOAT) {
                found.putFloat(4 * k, (float) value);
            } else if (kind == Network.Kind.FLOAT16) {
                found.putShort(2 * k, toHalf(value));
            } else {
                found.put(k, (byte) (value * 256));
            }
        }
        return found;
    }

    /** Returns the mean of all elements. */
    static double mean(ByteBuffer data, Network.Kind kind) {
        int count = data.limit() / kind.bytes;
        double sum = 0;
        for (int k = 0; k < count; k++) {
            sum += kind == Network.Kind.FLOAT
                    ? data.getFloat(4 * k)
                    : kind == Network.Kind.FLOAT16 ? half(data.getShort(2 * k)) : data.get(k) & 255;
        }
        return count == 0 ? 0 : sum / count;
    }

    /** Returns the half of a value in [0, 1), rounded down. */
    static short toHalf(double value) {
        if (value < 1.0 / 16384) {
            return (short) (value * 16777216.0);
        }
        int exponent = 15;
        double scaled = value;
        while (scaled < 1) {
            scaled *= 2;
            exponent--;
        }
        return (short) (exponent << 10 | (int) ((scaled - 1) * 1024));
    }

    /** Returns what a half is worth; infinities and NaN become numbers above 65504. */
    static double half(short bits) {
        int exponent = bits >> 10 & 31;
        int fraction = bits & 1023;
        double value = exponent == 0 ? fraction : 1024 + fraction;
        value *= Math.pow(2, (exponent == 0 ? 1 : exponent) - 25);
        return bits < 0 ? -value : value;
    }
}
