package io.github.mfagan.core;

/** What is fed to the network, and the part of it whose output is kept. */
public final class Tile {
    public final Window window;
    public final Window core;

    /** Makes a tile; the core lies in the window, both in the image's own LR pixels. */
    public Tile(Window window, Window core) {
        this.window = window;
        this.core = core;
    }
}
