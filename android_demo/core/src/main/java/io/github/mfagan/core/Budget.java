package io.github.mfagan.core;

/** Chooses the tile by the memory that may be taken. */
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
     * @param bytes that may be taken
     */
    public static int tile(ModelCard card, int width, long bytes) {
        int tile = LARGEST_TILE;
        while (tile > Upscaler.LEAST_TILE && needed(card, width, tile) > bytes) {
            tile /= 2;
        }
        return tile;
    }

    /** Returns the bytes that tiles of a size take at most, in a picture of a width. */
    public static long needed(ModelCard card, int width, int tile) {
        Architecture network = card.architecture;
        int margin = Tiling.roundUp(network.receptiveRadius, network.alignment);
        long high = card.size == null ? tile + 2L * margin : card.size[0];
        long wide = card.size == null ? Math.min(tile + 2L * margin, width) : card.size[1];
        long scale = network.scale;
        // Floats, of int8 networks too: what lies between two layers may be unpacked.
        long live = RUNTIME * 4 * network.liveNumbersPerPixel() * high * wide;
        long output = 2 * 3 * 4 * scale * scale * high * wide; // the runtime's, and a copy
        long band = 4 * scale * scale * Math.min(tile, high) * width;
        return live + output + band;
    }
}
