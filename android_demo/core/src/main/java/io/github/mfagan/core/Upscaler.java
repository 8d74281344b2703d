package io.github.mfagan.core;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * Enlarges a picture tile by tile, with the result of the whole frame, from above to below.
 *
 * <p>A row of tiles is in memory at a time; it goes to the sink as soon as it is whole.
 */
public final class Upscaler {
    /** Tiles are not made smaller than so many LR pixels a side. */
    public static final int LEAST_TILE = 16;

    /** Where a picture goes; a new sink is asked for when it has to be begun again. */
    public interface Target {
        /**
         * Returns the sink of a picture that is begun.
         *
         * @throws IOException it cannot be written
         */
        RowSink open(int height, int width) throws IOException;
    }

    private final ModelCard card;
    private final Network network;

    /** Makes it of a network and its card. */
    public Upscaler(ModelCard card, Network network) {
        this.card = card;
        this.network = network;
    }

    /**
     * Enlarges a picture by the network's scale.
     *
     * <p>The result does not depend on the tile; memory does. Where a window does not fit, the tile
     * is halved, down to {@link #LEAST_TILE}, and the picture begun again.
     *
     * @param tile side of a tile's core, LR pixels
     * @return the tile that did
     * @throws CancelledException the watcher said so
     * @throws NetworkException the network cannot be run, or there is too little memory
     * @throws IOException the picture cannot be read or written
     */
    public int run(PictureSource picture, int tile, Target target, Watcher watcher)
            throws IOException, NetworkException, CancelledException {
        int chosen = tile;
        while (true) {
            try {
                enlarge(picture, chosen, target, watcher);
                return chosen;
            } catch (OutOfMemoryError error) {
                int smaller = Math.min(chosen, Math.max(picture.height(), picture.width())) / 2;
                if (card.size != null || smaller < LEAST_TILE) {
                    throw new NetworkException(
                            "there is too little memory; use a smaller model", error);
                }
                chosen = smaller;
                watcher.smallerTile(chosen);
            }
        }
    }

    private void enlarge(PictureSource picture, int tile, Target target, Watcher watcher)
            throws IOException, NetworkException, CancelledException {
        int scale = card.architecture.scale;
        int width = picture.width();
        List<Tile> plan = card.plan(picture.height(), width, tile);
        double area = (double) picture.height() * width;
        double done = 0;
        int[] band = new int[0];
        RowSink sink = target.open(picture.height() * scale, width * scale);
        try {
            for (Tile part : plan) {
                if (watcher.cancelled()) {
                    throw new CancelledException();
                }
                int size = part.core.height * scale * width * scale;
                band = band.length == size ? band : new int[size];
                fill(picture, part, band);
                if (part.core.right() == width) {
                    sink.write(band, part.core.height * scale);
                }
                done += (double) part.core.height * part.core.width;
                watcher.progress(done / area);
            }
        } finally {
            sink.close();
        }
    }

    /** Runs one tile and puts its core's pixels where they belong in the row of tiles. */
    private void fill(PictureSource picture, Tile part, int[] band)
            throws IOException, NetworkException {
        int scale = card.architecture.scale;
        Window window = part.window;
        Window there = window.within(picture.height(), picture.width());
        int[] pixels = picture.read(there);
        ByteBuffer input = Pixels.buffer(card, window.height, window.width);
        Pixels.pack(
                card, pixels, there.height, there.width, window.height, window.width, input);
        Network.Kind kind = card.bytes ? Network.Kind.UINT8 : Network.Kind.FLOAT;
        long[] shape = card.shape(window.height, window.width);
        ByteBuffer output = network.run(input, shape, kind).data;
        Window core = part.core;
        Window kept =
                new Window(
                        (core.top - window.top) * scale,
                        (core.left - window.left) * scale,
                        core.height * scale,
                        core.width * scale);
        int height = window.height * scale;
        int width = window.width * scale;
        if (output.remaining() != 3L * height * width * kind.bytes) {
            throw new NetworkException("the network's output is not " + scale + " times larger");
        }
        int stride = picture.width() * scale;
        Pixels.unpack(card, output, height, width, kept, band, core.left * scale, stride);
    }
}
