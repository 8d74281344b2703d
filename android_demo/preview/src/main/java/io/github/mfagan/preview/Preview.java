package io.github.mfagan.preview;

import io.github.mfagan.core.Comparison;
import io.github.mfagan.core.ModelCard;
import io.github.mfagan.core.Painter;
import io.github.mfagan.core.Progress;
import io.github.mfagan.core.Scene;
import io.github.mfagan.core.Tile;
import java.awt.Color;
import java.awt.Dimension;
import java.awt.Font;
import java.awt.Graphics;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.event.ComponentAdapter;
import java.awt.event.ComponentEvent;
import java.awt.event.MouseAdapter;
import java.awt.event.MouseEvent;
import java.awt.event.MouseWheelEvent;
import java.awt.geom.AffineTransform;
import java.awt.geom.Ellipse2D;
import java.awt.geom.Rectangle2D;
import java.awt.image.BufferedImage;
import java.io.BufferedInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.util.List;
import javax.imageio.ImageIO;
import javax.swing.JComponent;
import javax.swing.JFrame;

/**
 * The app's before/after view on a desktop: the same divider, zoom, tiles and progress of core/.
 *
 * <p>java Preview BEFORE.png AFTER.png opens a window: drag the divider or the picture, turn the
 * wheel, click twice. With a third word it draws the view into that file instead; then come width,
 * height, the divider's share, and zoom, x and y to zoom by and about; or, where AFTER is an .onnx
 * file, tile and how many tiles are done after so many seconds.
 */
public final class Preview extends JComponent implements Painter {
    private static final long serialVersionUID = 1L;
    private static final float REACH = 28;
    private static final double WHEEL = 1.1;

    private final transient Comparison comparison = new Comparison(REACH);
    private final transient Scene scene = new Scene(comparison, 1);
    private final transient BufferedImage before;
    private final transient BufferedImage after;
    private final double share;
    private final String said;
    private transient Graphics2D graphics;

    private Preview(BufferedImage before, BufferedImage after, int scale, double share, String said) {
        this.before = before;
        this.after = after;
        this.share = share;
        this.said = said;
        comparison.viewport.setPicture(before.getWidth() * scale, before.getHeight() * scale);
        MouseAdapter mouse =
                new MouseAdapter() {
                    @Override
                    public void mousePressed(MouseEvent event) {
                        finger(event);
                    }

                    @Override
                    public void mouseDragged(MouseEvent event) {
                        finger(event);
                    }

                    @Override
                    public void mouseReleased(MouseEvent event) {
                        comparison.fingers(new float[0], new float[0]);
                    }

                    @Override
                    public void mouseClicked(MouseEvent event) {
                        if (event.getClickCount() == 2) {
                            comparison.doubleTap(event.getX(), event.getY());
                            repaint();
                        }
                    }

                    @Override
                    public void mouseWheelMoved(MouseWheelEvent event) {
                        float factor = (float) Math.pow(WHEEL, -event.getPreciseWheelRotation());
                        comparison.viewport.zoomBy(factor, event.getX(), event.getY());
                        repaint();
                    }
                };
        addMouseListener(mouse);
        addMouseMotionListener(mouse);
        addMouseWheelListener(mouse);
        addComponentListener(
                new ComponentAdapter() {
                    @Override
                    public void componentResized(ComponentEvent event) {
                        comparison.viewport.setView(getWidth(), getHeight());
                        repaint();
                    }
                });
    }

    private void finger(MouseEvent event) {
        comparison.fingers(new float[] {event.getX()}, new float[] {event.getY()});
        repaint();
    }

    @Override
    protected void paintComponent(Graphics given) {
        graphics = (Graphics2D) given.create();
        graphics.setRenderingHint(
                RenderingHints.KEY_INTERPOLATION, RenderingHints.VALUE_INTERPOLATION_BILINEAR);
        graphics.setRenderingHint(
                RenderingHints.KEY_ANTIALIASING, RenderingHints.VALUE_ANTIALIAS_ON);
        graphics.setRenderingHint(
                RenderingHints.KEY_TEXT_ANTIALIASING, RenderingHints.VALUE_TEXT_ANTIALIAS_ON);
        scene.draw(this, after != null, share, said);
        graphics.dispose();
    }

    @Override
    public void picture(int which, float[] from, float[] to) {
        BufferedImage image = which == BEFORE ? before : after;
        double factor = image.getWidth() / (double) comparison.viewport.pictureWidth();
        double zoom = (to[2] - to[0]) / (from[2] - from[0]);
        Graphics2D part = (Graphics2D) graphics.create();
        part.clip(new Rectangle2D.Float(to[0], to[1], to[2] - to[0], to[3] - to[1]));
        AffineTransform place = new AffineTransform();
        place.translate(to[0] - from[0] * zoom, to[1] - from[1] * zoom);
        place.scale(zoom / factor, zoom / factor);
        part.drawImage(image, place, null);
        part.dispose();
    }

    @Override
    public void fill(int color, float left, float top, float right, float bottom) {
        graphics.setColor(new Color(color, true));
        graphics.fill(new Rectangle2D.Float(left, top, right - left, bottom - top));
    }

    @Override
    public void circle(int color, float x, float y, float radius) {
        graphics.setColor(new Color(color, true));
        graphics.fill(new Ellipse2D.Float(x - radius, y - radius, 2 * radius, 2 * radius));
    }

    @Override
    public void text(String text, int color, float x, float y, float size) {
        graphics.setColor(new Color(color, true));
        graphics.setFont(new Font(Font.SANS_SERIF, Font.PLAIN, Math.round(size)));
        graphics.drawString(text, x, y);
    }

    @Override
    public float textWidth(String text, float size) {
        Font font = new Font(Font.SANS_SERIF, Font.PLAIN, Math.round(size));
        return (float) graphics.getFontMetrics(font).getStringBounds(text, graphics).getWidth();
    }

    private BufferedImage render(int width, int height) {
        BufferedImage image = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
        setSize(width, height);
        comparison.viewport.setView(width, height);
        Graphics2D canvas = image.createGraphics();
        paintComponent(canvas);
        canvas.dispose();
        return image;
    }

    /** Opens the window, or draws into a file. */
    public static void main(String[] words) throws Exception {
        BufferedImage before = ImageIO.read(new File(words[0]));
        if (words.length == 2) {
            BufferedImage after = ImageIO.read(new File(words[1]));
            JFrame frame = new JFrame("mfagan");
            Preview view = new Preview(before, after, after.getWidth() / before.getWidth(), -1, "");
            view.setPreferredSize(new Dimension(480, 720));
            frame.add(view);
            frame.pack();
            frame.setDefaultCloseOperation(JFrame.EXIT_ON_CLOSE);
            frame.setVisible(true);
            return;
        }
        int width = Integer.parseInt(words[3]);
        int height = Integer.parseInt(words[4]);
        Preview view =
                words[1].endsWith(".onnx") ? working(before, words) : finished(before, words);
        view.setSize(width, height);
        view.comparison.viewport.setView(width, height);
        if (!words[1].endsWith(".onnx")) {
            view.comparison.setDivider(Float.parseFloat(words[5]));
            float[] zoom = new float[3];
            for (int k = 0; k < 3; k++) {
                zoom[k] = Float.parseFloat(words[6 + k]);
            }
            view.comparison.viewport.zoomBy(zoom[0], zoom[1], zoom[2]);
        }
        ImageIO.write(view.render(width, height), "png", new File(words[2]));
    }

    private static Preview finished(BufferedImage before, String[] words) throws IOException {
        BufferedImage after = ImageIO.read(new File(words[1]));
        return new Preview(before, after, after.getWidth() / before.getWidth(), -1, "");
    }

    /** Shows how far the work is when so many tiles of the model's own plan are done. */
    private static Preview working(BufferedImage before, String[] words) throws Exception {
        ModelCard card;
        BufferedInputStream file = new BufferedInputStream(new FileInputStream(words[1]));
        try {
            card = ModelCard.read(file);
        } finally {
            file.close();
        }
        List<Tile> plan =
                card.plan(before.getHeight(), before.getWidth(), Integer.parseInt(words[5]));
        double done = 0;
        for (Tile tile : plan.subList(0, Integer.parseInt(words[6]))) {
            done += tile.core.height * tile.core.width;
        }
        double share = done / before.getHeight() / before.getWidth();
        Progress progress = new Progress(0);
        progress.progress(share);
        String said = progress.describe((long) (Double.parseDouble(words[7]) * 1e9));
        return new Preview(before, null, card.architecture.scale, share, said);
    }
}
