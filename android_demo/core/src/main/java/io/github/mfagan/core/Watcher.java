package io.github.mfagan.core;

/** What looks on while a picture is enlarged, and may end it. */
public interface Watcher {
    /** Returns whether the work is to end; asked before every tile. */
    boolean cancelled();

    /**
     * Is told of every finished tile.
     *
     * @param share of the picture that is done, 0 to 1
     */
    void progress(double share);

    /** Is told that there was too little memory: the picture is begun again with smaller tiles. */
    void smallerTile(int tile);
}
