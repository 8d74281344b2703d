package io.github.mfagan.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Pixels as Android has them, one int of 0xAARRGGBB each, to a network's tensors and back.
 *
 * <p>Floats are value / 255 in single precision, and come back as floor(clip(value, 0, 1) * 255 +
 * 0.5), operation by operation what mfagan/upscaling.py does, so that results are equal bit by bit.
 */
public final class Pixels {
    private static final int CHANNELS = 3;
    private static final int[] SHIFTS = {16, 8, 0};

    private Pixels() {}

    /** Returns a tensor's buffer for height x width pixels, in the machine's own byte order. */
    public static ByteBuffer buffer(ModelCard card, int height, int width) {
        long size = (long) height * width * CHANNELS * (card.bytes ? 1 : 4);
        if (size > Integer.MAX_VALUE) {
            throw new OutOfMemoryError("a tensor of " + height + "x" + width + " pixels");
        }
        return ByteBuffer.allocateDirect((int) size).order(ByteOrder.nativeOrder());
    }

    /**
     * Fills a network's input; where the window reaches past the pixels, their edge is repeated.
     *
     * @param pixels rows x columns, row by row; alpha is ignored
     * @param rows at most the window's height
     * @param columns at most the window's width
     * @param height of the window
     * @param width of the window
     * @param tensor of {@link #buffer}
     */
    public static void pack(
            ModelCard card,
            int[] pixels,
            int rows,
            int columns,
            int height,
            int width,
            ByteBuffer tensor) {
        int plane = height * width;
        for (int y = 0; y < height; y++) {
            int from = Math.min(y, rows - 1) * columns;
            for (int x = 0; x < width; x++) {
                int pixel = pixels[from + Math.min(x, columns - 1)];
                int place = y * width + x;
                for (int c = 0; c < CHANNELS; c++) {
                    int level = pixel >>> SHIFTS[c] & 255;
                    int at = card.channelsLast ? place * CHANNELS + c : c * plane + place;
                    if (card.bytes) {
                        tensor.put(at, (byte) level);
                    } else {
                        tensor.putFloat(4 * at, level / 255f);
                    }
                }
            }
        }
    }

    /**
     * Reads a rectangle of a network's output as opaque pixels.
     *
     * @param tensor of height x width pixels
     * @param part the rectangle, in the tensor's own pixels
     * @param pixels to write into
     * @param offset of the first pixel there
     * @param stride from one row to the next there
     * @throws NetworkException a value is not finite: rounded, it would be a flat picture
     */
    public static void unpack(
            ModelCard card,
            ByteBuffer tensor,
            int height,
            int width,
            Window part,
            int[] pixels,
            int offset,
            int stride)
            throws NetworkException {
        int plane = height * width;
        for (int y = 0; y < part.height; y++) {
            for (int x = 0; x < part.width; x++) {
                int place = (part.top + y) * width + part.left + x;
                int pixel = 255 << 24;
                for (int c = 0; c < CHANNELS; c++) {
                    int at = card.channelsLast ? place * CHANNELS + c : c * plane + place;
                    int level = card.bytes ? tensor.get(at) & 255 : level(tensor.getFloat(4 * at));
                    pixel |= level << SHIFTS[c];
                }
                pixels[offset + y * stride + x] = pixel;
            }
        }
    }

    private static int level(float value) throws NetworkException {
        if (Float.isNaN(value) || Float.isInfinite(value)) {
            throw new NetworkException("the network's output is not finite; its weights are bad");
        }
        float clipped = Math.min(Math.max(value, 0f), 1f);
        return (int) (clipped * 255f + 0.5f); // not negative: a cast rounds down as floor does
    }
}
