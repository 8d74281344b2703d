package io.github.mfagan.core;

/** Chooses the tile by the memory that may be taken: of the phone, and of Java's own heap. */
public final class Budget {
    private static final int LARGEST_TILE = 256;
    /** What a runtime takes beside a network's own tensors, as a factor of these. */
    private static final int RUNTIME = 2;

    private Budget() {}

    /**
     * Returns the side of a tile's core, LR pixels: the largest power of two up to 256 whose window
     * and row of results fit, and at least {@link Upscaler#LEAST_TILE}.
     *
     * @param card of the network
     * @param width of the picture, LR pixels
     * @param bytes of the phone's memory that may be taken
     * @param heap bytes of Java's heap that may be taken
     */
    public static int tile(ModelCard card, int width, long bytes, long heap) {
        int tile = LARGEST_TILE;
        while (tile > Upscaler.LEAST_TILE
                && (needed(card, width, tile) > bytes || heapNeeded(card, width, tile) > heap)) {
            tile /= 2;
        }
        return tile;
    }

    /** Returns the bytes that the runtime takes at most for a tile of a picture of a width. */
    public static long needed(ModelCard card, int width, int tile) {
        // Floats, of int8 networks too: what lies between two layers may be unpacked.
        long live = RUNTIME * 4 * card.architecture.liveNumbersPerPixel();
        return window(card, width, tile) * (live + output(card));
    }

    /** Returns the bytes of Java's heap: a window's result and a row of tiles. */
    public static long heapNeeded(ModelCard card, int width, int tile) {
        long scale = card.architecture.scale;
        long high = card.size == null ? tile : card.size[0];
        return window(card, width, tile) * output(card) + 4 * scale * scale * high * width;
    }

    /** Returns the pixels of a window. */
    private static long window(ModelCard card, int width, int tile) {
        if (card.size != null) {
            return (long) card.size[0] * card.size[1];
        }
        Architecture network = card.architecture;
        long side = tile + 2L * Tiling.roundUp(network.receptiveRadius, network.alignment);
        return side * Math.min(side, width);
    }

    /** Returns the bytes of the result of one LR pixel. */
    private static long output(ModelCard card) {
        long scale = card.architecture.scale;
        return 3 * scale * scale * (card.bytes ? 1 : 4);
    }
}
