"""The app: a page in the browser to see, segment, correct and learn from a folder of images, and its server.

::

    serve      the command: socket, browser, start and stop
    server     the HTTP interface: routes of the page and of the actions
    actions    what each request does
    replies    answers: JSON, pixels, files, and the text of errors
    access     which requests are answered: hosts, origins, tokens, and the headers of every answer
    messages   what requests and answers look like
    receive    a file that was dropped on the page
    uploads    names and checks of such files
    workspace  everything that is open: images, documents, models, predictions
    shelf      what stays open
    folder     the images of a folder, their label files and marks
    pages      names of the pages of a file
    decoder    processes that decode images within limits of memory and time; decode_worker is their program
    process    a process that answers messages; wire is what these look like
    picture    a page as tiles of a pyramid
    document   the labels of a page: edits, undo, redo
    label_file the file that the pages of an image save their labels to
    edits      edits of a label array; strokes makes them from requests
    models     the models that can be chosen
    jobs       the queue of predictions, one after the other
    predictions segmentations of images that are open, and their thresholds
    predictor  the process that predicts; predict_worker is its program, segmentation what it computes
    exports    files to take away
    turns      the thread of a queue

    learning, learning_actions, learning_messages    what learns, its requests, and what they look like
    desk               what learning needs of the workspace
    training_folder    copies of what is checked
    training_record    a training on disk
    trainings          the queue of trainings
    trainer            the process of a training
    comparison         scores of models on the same images
    review             images and labels that are worth a look
    openapi            the description of all requests

    page/      the page, sent exactly as it is written
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
