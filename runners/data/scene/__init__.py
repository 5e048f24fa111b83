"""The generator of synthetic crowds: `layout.plan` says what stands where, `painter.paint` makes the picture.

    layout.py    camera, ground, crowd, occlusion: exact arithmetic, the same on every machine
    figures.py   people and things, drawn with sprites.py
    backdrop.py  ground, sky, walls, trees, stands
    painter.py   light, colours, haze, and everything drawn from the back to the front
    stream.py    random numbers that no library version changes

`runners.data.datasets.synthetic` is the dataset made of it.
"""
