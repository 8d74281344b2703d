package io.github.mfagan.core;

import java.awt.image.BufferedImage;
import java.io.BufferedInputStream;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import javax.imageio.ImageIO;

/** Enlarges a picture with the app's own engine, or with one that repeats pixels. */
final class Upscaling {
    private Upscaling() {}

    static String run(Question q) throws Exception {
        byte[] model = Answers.read(q.text("model"));
        ModelCard card = ModelCard.read(new BufferedInputStream(new ByteArrayInputStream(model)));
        BufferedImage image = ImageIO.read(new File(q.text("picture")));
        int height = image.getHeight();
        int width = image.getWidth();
        int[] pixels = image.getRGB(0, 0, width, height, null, 0, width);
        final String out = q.text("out");
        Network network =
                q.has("fake") ? new Repeating(card, q) : load(model, q.number("threads"));
        final List<Integer> smaller = new ArrayList<Integer>();
        final int cancelAfter = q.has("cancel") ? q.number("cancel") : Integer.MAX_VALUE;
        final List<Double> shares = new ArrayList<Double>();
        Watcher watcher =
                new Watcher() {
                    @Override
                    public boolean cancelled() {
                        return shares.size() >= cancelAfter;
                    }

                    @Override
                    public void progress(double share) {
                        shares.add(share);
                    }

                    @Override
                    public void smallerTile(int tile) {
                        smaller.add(tile);
                    }
                };
        Upscaler.Target target =
                new Upscaler.Target() {
                    @Override
                    public RowSink open(int rows, int columns) throws IOException {
                        return new PngWriter(new FileOutputStream(out), rows, columns);
                    }
                };
        try {
            new Upscaler(card, network)
                    .run(new ArrayPicture(pixels, height, width), q.number("tile"), target, watcher);
        } finally {
            network.close();
        }
        return "{\"smaller\": " + smaller + ", \"shares\": " + shares + "}";
    }

    private static Network load(byte[] model, int threads) throws Exception {
        Engine engine = (Engine) Class.forName("io.github.mfagan.app.OrtEngine")
                .getConstructor(File.class).newInstance((Object) null);
        return engine.load(
                model,
                new Engine.Settings("cpu", Collections.<String, String>emptyMap(), threads, null));
    }

    /** Repeats each pixel; of windows above a size there is no memory; may give no numbers. */
    private static final class Repeating implements Network {
        private final ModelCard card;
        private final int most;
        private final boolean bad;

        Repeating(ModelCard card, Question q) {
            this.card = card;
            most = q.has("most") ? q.number("most") : Integer.MAX_VALUE;
            bad = q.text("fake").equals("nan");
        }

        @Override
        public Output run(ByteBuffer input, long[] shape, Kind kind) {
            int rows = (int) (card.channelsLast ? shape[1] : shape[2]);
            int columns = (int) (card.channelsLast ? shape[2] : shape[3]);
            if (rows * columns > most) {
                throw new OutOfMemoryError("window");
            }
            int scale = card.architecture.scale;
            ByteBuffer output = Pixels.buffer(card, rows * scale, columns * scale);
            int plane = rows * columns;
            for (int k = 0; k < 3 * plane * scale * scale; k++) {
                int c = k / (plane * scale * scale);
                int y = k / (columns * scale) % (rows * scale) / scale;
                int x = k % (columns * scale) / scale;
                float value = input.getFloat(4 * (c * plane + y * columns + x));
                output.putFloat(4 * k, bad ? Float.NaN : value);
            }
            return new Output(output.order(ByteOrder.nativeOrder()), shape, kind);
        }

        @Override
        public String endProfiling() {
            return "";
        }

        @Override
        public void close() {}
    }
}
