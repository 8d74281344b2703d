package io.github.mfagan.core;

import java.io.BufferedInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Answers what the Python tests ask of the core, in JSON; see tests/android/jvm.py. */
final class Answers {
    private Answers() {}

    static String answer(Question q) throws Exception {
        switch (q.text("ask")) {
            case "tiles":
                return spans(
                        Tiling.tiles(
                                q.number("height"), q.number("width"), q.number("tile"),
                                q.number("radius"), q.number("alignment")));
            case "fixed":
                return spans(
                        Tiling.fixedTiles(
                                q.number("height"), q.number("width"), q.numbers("size"),
                                q.number("radius"), q.number("alignment")));
            case "architecture":
                return architecture(Architecture.parse(q.text("text")));
            case "card":
                return card(q);
            case "plan":
                return spans(
                        ModelCard.of(q.texts("metadata"))
                                .plan(q.number("height"), q.number("width"), q.number("tile")));
            case "pack":
                return pack(q);
            case "unpack":
                return unpack(q);
            case "turn":
                return turn(q);
            case "png":
                return png(q);
            case "gestures":
                return Gestures.play(q);
            case "scene":
                return Gestures.draw(q);
            case "request":
                return request(q);
            case "budget":
                return budget(q);
            case "image":
                return image(q);
            case "progress":
                return progress(q);
            case "upscale":
                return Upscaling.run(q);
            case "store":
                return store(q);
            case "copy":
                return copy(q);
            case "layers":
                return Layers.count(new File(q.text("path"))).toString();
            default:
                throw new IllegalArgumentException(q.text("ask"));
        }
    }

    private static String spans(List<Tile> tiles) {
        List<String> found = new ArrayList<String>();
        for (Tile tile : tiles) {
            found.add(rectangle(tile.window) + ", " + rectangle(tile.core));
        }
        return "[[" + String.join("], [", found) + "]]";
    }

    private static String rectangle(Window w) {
        return w.top + ", " + w.left + ", " + w.height + ", " + w.width;
    }

    private static String architecture(Architecture a) {
        return "[" + a.scale + ", " + a.receptiveRadius + ", " + a.alignment + ", " + a.pools
                + ", " + a.liveNumbersPerPixel() + "]";
    }

    private static String card(Question q) throws Exception {
        ModelCard card;
        if (q.has("path")) {
            try (InputStream file = new BufferedInputStream(new FileInputStream(q.text("path")))) {
                card = ModelCard.read(file);
            }
        } else {
            card = ModelCard.of(q.texts("metadata"));
        }
        card.checkForPhone();
        return new Json()
                .add("architecture", Json.quoted(card.name))
                .add("precision", Json.quoted(card.precision))
                .add("layout", card.channelsLast ? "\"nhwc\"" : "\"nchw\"")
                .add("dtype", card.bytes ? "\"uint8\"" : "\"float32\"")
                .add("size", card.size == null ? "null" : numbers(card.size))
                .add("described", Json.quoted(card.describe()))
                .close();
    }

    private static String numbers(int[] values) {
        List<String> found = new ArrayList<String>();
        for (int value : values) {
            found.add(Integer.toString(value));
        }
        return found.toString();
    }

    private static String pack(Question q) throws Exception {
        ModelCard card = ModelCard.of(q.texts("metadata"));
        int height = q.number("height");
        int width = q.number("width");
        ByteBuffer tensor = Pixels.buffer(card, height, width);
        Pixels.pack(
                card, q.numbers("pixels"), q.number("rows"), q.number("columns"), height, width,
                tensor);
        byte[] bytes = new byte[tensor.capacity()];
        tensor.get(bytes);
        write(q.text("out"), bytes);
        return "null";
    }

    private static String unpack(Question q) throws Exception {
        ModelCard card = ModelCard.of(q.texts("metadata"));
        ByteBuffer tensor = ByteBuffer.wrap(read(q.text("tensor")));
        tensor.order(java.nio.ByteOrder.nativeOrder());
        int[] part = q.numbers("part");
        int[] pixels = new int[part[2] * part[3]];
        Window window = new Window(part[0], part[1], part[2], part[3]);
        Pixels.unpack(
                card, tensor, q.number("height"), q.number("width"), window, pixels, 0, part[3]);
        return numbers(pixels);
    }

    private static String turn(Question q) throws Exception {
        ArrayPicture stored =
                new ArrayPicture(q.numbers("pixels"), q.number("height"), q.number("width"));
        Orientation turned = new Orientation(stored, q.number("orientation"));
        Window all = new Window(0, 0, turned.height(), turned.width());
        int[] part = q.has("part") ? q.numbers("part") : null;
        Window window = part == null ? all : new Window(part[0], part[1], part[2], part[3]);
        return "[" + turned.height() + ", " + turned.width() + ", "
                + numbers(turned.read(window)) + "]";
    }

    /** Opens a store, does what is asked, and says what a process that comes next finds. */
    private static String store(Question q) throws Exception {
        File folder = new File(q.text("folder"));
        Store store = new Store(folder);
        store.open();
        String failed = "";
        try {
            if (q.has("result")) {
                write(store.nextResult().getPath(), q.text("result").getBytes("UTF-8"));
                store.takeResult(q.number("scale"), q.text("said"));
            }
            if (q.has("source")) {
                write(store.nextSource().getPath(), q.text("source").getBytes("UTF-8"));
                store.takeSource();
            }
        } catch (java.io.IOException error) {
            failed = error.getMessage();
        }
        File result = store.result();
        return new Json()
                .add("failed", Json.quoted(failed))
                .add("scale", Integer.toString(store.scale()))
                .add("said", Json.quoted(store.said()))
                .add("result", Json.quoted(result.isFile()
                        ? new String(read(result.getPath()), "UTF-8") : ""))
                .close();
    }

    private static String copy(Question q) throws Exception {
        Progress progress = new Progress(0);
        if (q.has("cancel")) {
            progress.cancel();
        }
        FileInputStream from = new FileInputStream(q.text("path"));
        byte[] found = Files.readAll(from, q.number("most"), progress);
        return "[" + found.length + ", " + from.getChannel().isOpen() + "]";
    }

    private static String png(Question q) throws Exception {
        int height = q.number("height");
        int width = q.number("width");
        ArrayPicture picture = new ArrayPicture(q.numbers("pixels"), height, width);
        PngWriter writer = new PngWriter(new FileOutputStream(q.text("out")), height, width);
        int top = 0;
        for (int rows : q.numbers("bands")) {
            writer.write(picture.read(new Window(top, 0, rows, width)), rows);
            top += rows;
        }
        writer.close();
        return "null";
    }

    private static String request(Question q) throws Exception {
        BenchmarkRequest found = BenchmarkRequest.of(q.texts("extras"));
        return new Json()
                .add("model", Json.quoted(found.model))
                .add("id", Json.quoted(found.id))
                .add("shape", java.util.Arrays.toString(found.shape))
                .add("type", Json.quoted(found.kind.name()))
                .add("provider", Json.quoted(found.provider))
                .add("options", Json.quoted(found.options.toString()))
                .add("numbers", numbers(new int[] {
                    found.threads, found.warmup, found.runs, found.limit}))
                .close();
    }

    private static String budget(Question q) throws Exception {
        ModelCard card = ModelCard.of(q.texts("metadata"));
        int width = q.number("width");
        int tile = Budget.tile(card, width, (long) q.real("bytes"), (long) q.real("heap"));
        return "[" + tile + ", " + Budget.needed(card, width, tile) + ", "
                + Budget.heapNeeded(card, width, tile) + "]";
    }

    private static String image(Question q) throws Exception {
        int[] shape = q.numbers("shape");
        long[] sides = new long[shape.length];
        for (int k = 0; k < shape.length; k++) {
            sides[k] = shape[k];
        }
        Network.Kind kind = Network.Kind.valueOf(q.text("kind"));
        ByteBuffer data = TestImage.make(sides, kind);
        byte[] bytes = new byte[data.capacity()];
        data.get(bytes);
        write(q.text("out"), bytes);
        return "[" + TestImage.mean(data, kind) + ", \"" + Benchmark.checksum(data) + "\"]";
    }

    private static String progress(Question q) {
        Progress progress = new Progress(0);
        if (q.has("smaller")) {
            progress.smallerTile(q.number("smaller"));
        }
        progress.progress(q.real("share"));
        if (q.has("cancel")) {
            progress.cancel();
        }
        return Json.quoted(progress.describe((long) (q.real("seconds") * 1e9)));
    }

    static byte[] read(String path) throws Exception {
        return java.nio.file.Files.readAllBytes(new File(path).toPath());
    }

    static void write(String path, byte[] bytes) throws Exception {
        java.nio.file.Files.write(new File(path).toPath(), bytes);
    }

    /** Reads questions, a line each, and writes an answer a line: JSON, or {"refused": ...}. */
    @SuppressWarnings("unchecked")
    public static void main(String[] words) throws Exception {
        StringBuilder answers = new StringBuilder();
        String text = new String(read(words[0]), "UTF-8");
        for (String line : text.split("\n")) {
            Question question = new Question((Map<String, Object>) JsonReader.read(line));
            String said;
            try {
                said = answer(question);
            } catch (RefusedException | NetworkException | CancelledException
                    | IllegalArgumentException error) {
                said = new Json()
                        .add("refused", Json.quoted(String.valueOf(error.getMessage())))
                        .add("kind", Json.quoted(error.getClass().getSimpleName()))
                        .close();
            }
            answers.append(said).append('\n');
        }
        write(words[1], answers.toString().getBytes("UTF-8"));
    }
}
